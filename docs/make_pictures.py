"""Draw the pictures of README.md and of these pages.

After `skelnas demo`: `python docs/make_pictures.py skelnas-demo`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from skelnas.config import PredictSettings
from skelnas.evaluation.timeline import predict_over_time
from skelnas.genotype import BUILT_IN
from skelnas.reporting.plot_cells import draw_cells
from skelnas.reporting.plot_timeline import draw_timeline
from skelnas.training.saved_model import load_model

DOCS = Path(__file__).parent


def main(demo: Path) -> None:
    """Draw a genotype of the paper's authors, and the made-up session of a demo."""
    name = "ntu_cs112se30"
    draw_cells(BUILT_IN[name], DOCS / f"{name}.svg")
    model, session = load_model(demo / "model-searched"), demo / "made-up-session.skeleton"
    timeline = predict_over_time(model, session, PredictSettings(device="cpu", threads=1))
    draw_timeline(timeline, DOCS / "session.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
