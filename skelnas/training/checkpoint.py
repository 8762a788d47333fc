"""Checkpoints: everything that the next step of a run depends on, in one safetensors file.

The tensors are those of the model (``model/NAME``), of each other state, such as an optimizer
(``OPTIMIZER/PARAMETER/KEY``) or a running average (``average/NAME``), and the sums of the metrics
in this epoch (``sums``). The metadata holds the position in the run: epoch, step, and the number
of clips that the sums are over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from skelnas.errors import InputError, shown
from skelnas.runtime import tensor_files
from skelnas.runtime.files import atomic_write

POSITION = ("epoch", "step", "count")
"""Fields of the position in a run."""

MAX_POSITION = 2**53
"""Larger numbers are not exact in every language that reads JSON."""

METADATA_KEY = "place"
"""Of the position; the name is part of the file format."""


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], position: Mapping[str, int]) -> None:
    """Write tensors by name, and the position in the run, atomically."""
    atomic_write(path, tensor_files.to_bytes(tensors, METADATA_KEY, position))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Read a checkpoint: its tensors by name, and the position in the run.

    Raises:
        InputError: the file is not a checkpoint, or damaged.
    """
    try:
        tensors, position = tensor_files.read(path, METADATA_KEY)
        if set(position) != set(POSITION):
            raise ValueError(f"its position in the run has {shown(sorted(position))}")
        for name, number in position.items():
            if type(number) is not int or not 0 <= number <= MAX_POSITION:
                raise ValueError(f"{name} of its position in the run is {shown(number)}")
    except ValueError as error:
        raise InputError(
            f"{path}: not a checkpoint of skelnas ({error})",
            hint="--force starts over",
        ) from None
    return tensors, position


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
