"""Pictures of genotypes and of how a run went, by matplotlib, which is imported when it draws."""

from skelnas.plot.cells import draw_cells

__all__ = ["draw_cells"]
