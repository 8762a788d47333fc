"""Candidate operations as modules, derived networks, and the baselines of the paper."""
