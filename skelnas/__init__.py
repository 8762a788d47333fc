"""Find compact CNNs for skeleton-based action recognition.

The commands are functions of this package, such as ``skelnas.search(...)``. Each name is imported
on first use, so that ``import skelnas`` is fast and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skelnas._version import __version__

if TYPE_CHECKING:  # the names of _EXPORTS, spelt out for type checkers; a test compares them
    from skelnas.config import BenchSettings as BenchSettings
    from skelnas.config import EvaluateSettings as EvaluateSettings
    from skelnas.config import PredictSettings as PredictSettings
    from skelnas.config import QuantizeSettings as QuantizeSettings
    from skelnas.config import SearchSettings as SearchSettings
    from skelnas.config import TrainSettings as TrainSettings
    from skelnas.data.cache import Cache as Cache
    from skelnas.data.inspect import Inspection as Inspection
    from skelnas.data.inspect import inspect as inspect
    from skelnas.data.prepare import PrepareReport as PrepareReport
    from skelnas.data.prepare import prepare as prepare
    from skelnas.evaluation.clip_dataset import ClipDataset as ClipDataset
    from skelnas.evaluation.clip_dataset import load_dataset as load_dataset
    from skelnas.evaluation.clip_dataset import load_dataset_for as load_dataset_for
    from skelnas.evaluation.cross_validation import cross_validate as cross_validate
    from skelnas.evaluation.ensemble import ensemble as ensemble
    from skelnas.evaluation.evaluate import Evaluation as Evaluation
    from skelnas.evaluation.evaluate import evaluate as evaluate
    from skelnas.evaluation.export import Exported as Exported
    from skelnas.evaluation.export import export as export
    from skelnas.evaluation.predict import Prediction as Prediction
    from skelnas.evaluation.predict import Window as Window
    from skelnas.evaluation.predict import predict as predict
    from skelnas.evaluation.predict import predict_stream as predict_stream
    from skelnas.evaluation.quantize import Quantization as Quantization
    from skelnas.evaluation.quantize import quantize as quantize
    from skelnas.genotype import Genotype as Genotype
    from skelnas.models.create import create_model as create_model
    from skelnas.models.create import list_models as list_models
    from skelnas.nas.bench.run import bench as bench
    from skelnas.nas.bench.table import BenchTable as BenchTable
    from skelnas.nas.derive import derive as derive
    from skelnas.nas.predictor_search import predictor_search as predictor_search
    from skelnas.nas.resume import resume as resume
    from skelnas.nas.search import search as search
    from skelnas.reporting.publish import push_to_hub as push_to_hub
    from skelnas.reporting.publish import save_pretrained as save_pretrained
    from skelnas.reporting.report import report as report
    from skelnas.training.hub import from_pretrained as from_pretrained
    from skelnas.training.saved_model import Model as Model
    from skelnas.training.saved_model import load_model as load_model
    from skelnas.training.train import TrainedModel as TrainedModel
    from skelnas.training.train import train as train

_EXPORTS = {
    "skelnas.config": (
        "BenchSettings",
        "EvaluateSettings",
        "PredictSettings",
        "QuantizeSettings",
        "SearchSettings",
        "TrainSettings",
    ),
    "skelnas.data.cache": ("Cache",),
    "skelnas.data.inspect": ("Inspection", "inspect"),
    "skelnas.data.prepare": ("PrepareReport", "prepare"),
    "skelnas.evaluation.clip_dataset": ("ClipDataset", "load_dataset", "load_dataset_for"),
    "skelnas.evaluation.cross_validation": ("cross_validate",),
    "skelnas.evaluation.ensemble": ("ensemble",),
    "skelnas.evaluation.evaluate": ("Evaluation", "evaluate"),
    "skelnas.evaluation.export": ("Exported", "export"),
    "skelnas.evaluation.predict": ("Prediction", "Window", "predict", "predict_stream"),
    "skelnas.evaluation.quantize": ("Quantization", "quantize"),
    "skelnas.genotype": ("Genotype",),
    "skelnas.models.create": ("create_model", "list_models"),
    "skelnas.nas.bench.run": ("bench",),
    "skelnas.nas.bench.table": ("BenchTable",),
    "skelnas.nas.derive": ("derive",),
    "skelnas.nas.predictor_search": ("predictor_search",),
    "skelnas.nas.resume": ("resume",),
    "skelnas.nas.search": ("search",),
    "skelnas.reporting.publish": ("push_to_hub", "save_pretrained"),
    "skelnas.reporting.report": ("report",),
    "skelnas.training.hub": ("from_pretrained",),
    "skelnas.training.saved_model": ("Model", "load_model"),
    "skelnas.training.train": ("TrainedModel", "train"),
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
