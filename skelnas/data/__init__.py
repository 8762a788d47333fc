"""Skeleton data: readers of raw formats, the cache, and batches for the networks."""
