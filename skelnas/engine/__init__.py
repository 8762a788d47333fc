"""Engines evaluate the mixed cells of the supernet; they know tensors, not modules.

Every engine offers `cell` with the meaning of `skelnas.engine.reference.cell`, the truth.
"""
