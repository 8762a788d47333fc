"""The fused engine: `reference.cell` in another order of work, in plain PyTorch on any device.

What edges that leave one node have in common is done once a node; normalisation, share and
sum are one step; no normalised value is kept, and the gradient is written by hand.
docs/engine.md explains it.
"""

from skelnas.engine.fused.cell import cell

__all__ = ["cell"]
