"""Clips of any length → batches [N, C, T, V] on the device that learns from them."""

from skelnas.batches.order import num_batches, shuffled
from skelnas.batches.sampling import Stretch
from skelnas.batches.store import Batch, ClipStore, clip_shape
from skelnas.batches.streams import branch_channels

__all__ = [
    "Batch",
    "ClipStore",
    "Stretch",
    "branch_channels",
    "clip_shape",
    "num_batches",
    "shuffled",
]
