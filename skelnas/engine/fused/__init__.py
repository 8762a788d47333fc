"""The fused engine: `reference.cell` reordered, in plain PyTorch on any device.

Work that edges of one node share is done once per node; normalising, weighting and adding are one
step; no normalised value is stored, and the gradient is hand-written. See docs/engine.md.
"""

from skelnas.engine.fused.mixed_cell import cell

__all__ = ["cell"]
