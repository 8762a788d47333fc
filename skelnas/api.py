"""The verbs as functions: what the commands call, in one place, for programs.

Each name is found where it lives when it is asked for, so that importing this takes no time.
[docs/python.md](../docs/python.md) shows them in use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skelnas.config import (
        EvaluateSettings,
        PredictSettings,
        SearchSettings,
        TrainSettings,
    )
    from skelnas.derive import derive
    from skelnas.ensemble import ensemble
    from skelnas.evaluate import Evaluation, evaluate
    from skelnas.export import Exported, export
    from skelnas.genotype import Genotype
    from skelnas.model_folder import Model, load_model
    from skelnas.predict import Prediction, Window, predict, predict_stream
    from skelnas.prepare import PrepareReport, prepare
    from skelnas.search import search
    from skelnas.train import train

HOMES = {
    "config": ("EvaluateSettings", "PredictSettings", "SearchSettings", "TrainSettings"),
    "derive": ("derive",),
    "ensemble": ("ensemble",),
    "evaluate": ("Evaluation", "evaluate"),
    "export": ("Exported", "export"),
    "genotype": ("Genotype",),
    "model_folder": ("Model", "load_model"),
    "predict": ("Prediction", "Window", "predict", "predict_stream"),
    "prepare": ("PrepareReport", "prepare"),
    "search": ("search",),
    "train": ("train",),
}
"""Module to the names that come from it."""

__all__ = [
    "EvaluateSettings",
    "Evaluation",
    "Exported",
    "Genotype",
    "Model",
    "PredictSettings",
    "Prediction",
    "PrepareReport",
    "SearchSettings",
    "TrainSettings",
    "Window",
    "derive",
    "ensemble",
    "evaluate",
    "export",
    "load_model",
    "predict",
    "predict_stream",
    "prepare",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    for module, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"skelnas.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
