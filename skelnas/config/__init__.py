"""Settings of each verb: name, default, meaning and where the default comes from.

The text of a field is also the help of its flag. "Paper" is SAR-NAS, "release" the code that
its authors published, "ours" a choice of this project.
"""

from skelnas.config.clips import STREAMS, AugmentSettings, ClipSettings
from skelnas.config.machine import (
    Device,
    DeviceSettings,
    Precision,
    Statistics,
    Store,
    WorkSettings,
)
from skelnas.config.search import Engine, Hessian, Order, SearchSettings
from skelnas.config.settings import Settings
from skelnas.config.train import RECIPES, SHORT_EPOCHS, BaselineName, TrainSettings
from skelnas.config.use import EvaluateSettings, ExportFormat, PredictSettings, ScoredPart

__all__ = [
    "RECIPES",
    "SHORT_EPOCHS",
    "STREAMS",
    "AugmentSettings",
    "BaselineName",
    "ClipSettings",
    "Device",
    "DeviceSettings",
    "Engine",
    "EvaluateSettings",
    "ExportFormat",
    "Hessian",
    "Order",
    "Precision",
    "PredictSettings",
    "ScoredPart",
    "SearchSettings",
    "Settings",
    "Statistics",
    "Store",
    "TrainSettings",
    "WorkSettings",
]
