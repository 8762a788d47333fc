"""Readers of raw skeleton data: one module per format, each with a `Source`."""
