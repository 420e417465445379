"""Synthetic twins of the real data: chest CT phantoms (patient, render, phantom), activity videos (choreography,
actions), and folders of their files (folders)."""
