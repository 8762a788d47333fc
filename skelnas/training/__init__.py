"""Training a network, and what a run leaves on disk."""
