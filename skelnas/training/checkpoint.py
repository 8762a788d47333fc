"""Checkpoints: everything that the next step of a run depends on, in one safetensors file.

The tensors are those of the model (``model/NAME``), of each other state, such as an optimizer
(``OPTIMIZER/PARAMETER/KEY``) or a running average (``average/NAME``), and the sums of the metrics
in this epoch (``sums``). The metadata holds the position in the run: epoch, step, and the number
of clips that the sums are over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from skelnas.errors import InputError
from skelnas.runtime.files import atomic_write

POSITION = ("epoch", "step", "count")
"""Fields of the position in a run."""

METADATA_KEY = "place"
"""Of the position; the name is part of the file format."""


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], position: Mapping[str, int]) -> None:
    """Write tensors by name, and the position in the run, atomically."""
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    metadata = {METADATA_KEY: json.dumps(position, sort_keys=True)}
    atomic_write(path, safetensors.torch.save(contiguous, metadata))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Read a checkpoint: its tensors by name, and the position in the run.

    Raises:
        InputError: the file is not a checkpoint.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            position = json.loads(file.metadata()[METADATA_KEY])
            if not all(
                isinstance(position[name], int) and position[name] >= 0 for name in POSITION
            ):
                raise ValueError("its position in the run is not a count")
            return {name: file.get_tensor(name) for name in file.keys()}, position  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a checkpoint of skelnas ({error})",
            hint="--force starts over",
        ) from None


def select(tensors: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Return the tensors named ``OWNER/NAME`` as ``NAME``."""
    prefix = f"{owner}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


class State(Protocol):
    """What the next step depends on besides the model, such as an optimizer."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors by name."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from what `tensors` returned.

        Raises:
            KeyError, ValueError: the tensors are of something else.
        """


class OptimizerState:
    """The state of a PyTorch optimizer, its tensors named ``PARAMETER/KEY``.

    Args:
        optimizer: has one parameter group.
        names: of its parameters.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, names: Sequence[str]) -> None:
        self.optimizer = optimizer
        self.names = names

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of each parameter that has taken a step."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{name}/{key}": value
            for index, name in enumerate(self.names)
            for key, value in state.get(index, {}).items()
            if isinstance(value, Tensor)
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from what `tensors` returned.

        Raises:
            KeyError, ValueError: it is the state of other parameters.
        """
        state: dict[int, dict[str, Tensor]] = {}
        indices = {name: index for index, name in enumerate(self.names)}
        (group,) = self.optimizer.param_groups
        for name, tensor in tensors.items():
            parameter, key = name.split("/")
            index = indices[parameter]
            if tensor.dim() and tensor.shape != group["params"][index].shape:
                raise ValueError(f"{name} has the shape {list(tensor.shape)}")
            state.setdefault(index, {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
