"""Checkpoints: everything that the next step of a run depends on, as one safetensors file.

The tensors are those of the model (``model/NAME``), of each optimiser
(``OPTIMISER/PARAMETER/KEY``), of a running average of the model (``average/NAME``) where there is
one, and the sums of the metrics so far (``sums``). The metadata hold the place in the run: epoch,
step, and the number of clips that the sums are over.
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

PLACE = ("epoch", "step", "count")


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], place: Mapping[str, int]) -> None:
    """Write tensors by name, and the place in the run, atomically."""
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    metadata = {"place": json.dumps(place, sort_keys=True)}
    atomic_write(path, safetensors.torch.save(contiguous, metadata))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Read a checkpoint: its tensors by name, and the place in the run.

    Raises:
        InputError: it is none.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            place = json.loads(file.metadata()["place"])
            if not all(isinstance(place[name], int) and place[name] >= 0 for name in PLACE):
                raise ValueError("its place in the run is no count")
            return {name: file.get_tensor(name) for name in file.keys()}, place  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a checkpoint of skelnas ({error})",
            hint="--force starts the run anew",
        ) from None


def part_of(tensors: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Pick out of a checkpoint what belongs to the model or to a state, under its own names."""
    prefix = f"{owner}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


class State(Protocol):
    """What else than a model the next step depends on: that of an optimiser, say."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all its numbers by name."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Be as `tensors` said.

        Raises:
            KeyError, ValueError: they are of something else.
        """


class OptimizerState:
    """The state of an optimiser of PyTorch, its tensors named ``PARAMETER/KEY``.

    Args:
        optimizer: with one group of parameters.
        names: of its parameters.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, names: Sequence[str]) -> None:
        self.optimizer = optimizer
        self.names = names

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of each parameter that has taken a step."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{name}/{key}": value
            for index, name in enumerate(self.names)
            for key, value in state.get(index, {}).items()
            if isinstance(value, Tensor)
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the optimiser back what `tensors` named.

        Raises:
            KeyError, ValueError: it is the state of other parameters.
        """
        state: dict[int, dict[str, Tensor]] = {}
        places = {name: index for index, name in enumerate(self.names)}
        (group,) = self.optimizer.param_groups
        for name, tensor in tensors.items():
            parameter, key = name.split("/")
            place = places[parameter]
            if tensor.dim() and tensor.shape != group["params"][place].shape:
                raise ValueError(f"{name} has the shape {list(tensor.shape)}")
            state.setdefault(place, {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
