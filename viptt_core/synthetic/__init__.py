"""Synthetic twins of the real data: chest CT phantoms (patient, render, phantom) and activity videos
(choreography, actions). They read nothing and depend on nothing of the package but constants and errors."""
