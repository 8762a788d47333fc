"""Settings of each command, with the sources of their defaults.

The description of a field is its help. In the comments, "paper" is SAR-NAS, "release" the code that
its authors published, and "ours" a choice of this project.
"""

from skelnas.config.bench import BenchSettings
from skelnas.config.budget import BudgetSettings
from skelnas.config.clips import STREAMS, AugmentSettings, ClipSettings
from skelnas.config.evaluation import (
    EvaluateSettings,
    ExportFormat,
    PredictSettings,
    QuantizeSettings,
    ScoredPart,
)
from skelnas.config.machine import (
    DEVICES,
    Device,
    DeviceSettings,
    Precision,
    Statistics,
    Store,
    WorkSettings,
)
from skelnas.config.method import Method, MethodSettings
from skelnas.config.search import Engine, Hessian, Order, SearchSettings, count_weight_epochs
from skelnas.config.settings import Settings
from skelnas.config.tracking import TrackerName
from skelnas.config.train import RECIPES, SHORT_EPOCHS, BaselineName, TrainSettings

__all__ = [
    "DEVICES",
    "RECIPES",
    "SHORT_EPOCHS",
    "STREAMS",
    "AugmentSettings",
    "BaselineName",
    "BenchSettings",
    "BudgetSettings",
    "ClipSettings",
    "Device",
    "DeviceSettings",
    "Engine",
    "EvaluateSettings",
    "ExportFormat",
    "Hessian",
    "Method",
    "MethodSettings",
    "Order",
    "Precision",
    "PredictSettings",
    "QuantizeSettings",
    "ScoredPart",
    "SearchSettings",
    "Settings",
    "Statistics",
    "Store",
    "TrackerName",
    "TrainSettings",
    "WorkSettings",
    "count_weight_epochs",
]
