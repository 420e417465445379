"""From weights and scans to probabilities and scores."""
