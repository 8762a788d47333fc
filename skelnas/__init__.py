"""skelnas finds compact CNNs for skeleton-based action recognition.

`load_model` loads a trained one; the verbs as functions are in `skelnas.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skelnas.model_folder import Model, load_model

__all__ = ["Model", "__version__", "load_model"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in ("Model", "load_model"):  # PyTorch is imported when a model is asked for
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("skelnas.model_folder"), name)
