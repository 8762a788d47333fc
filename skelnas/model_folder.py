"""Trained models on disk: a safetensors file that says all that is needed to use it.

``model.safetensors`` holds the weights under their names in `Network` and one metadata key,
``skelnas``, with a sorted JSON object: the fields of `ModelCard`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from skelnas import runs
from skelnas.config import ClipSettings
from skelnas.errors import InputError
from skelnas.genotype import from_dict
from skelnas.models.network import Network
from skelnas.runs import MODEL
from skelnas.splits import HoldOut

METADATA_KEY = "skelnas"
VERSION = 1

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class ModelCard:
    """What a model is, what it was trained on and how its input is made.

    Attributes:
        genotype: JSON form of the cells.
        channels, layers: width of the first cell, number of cells.
        classes: class names in order of the class index.
        input_shape: (C, T, V) of a clip.
        joints: names of the joints of one person.
        clip_settings: `skelnas.config.ClipSettings` as plain JSON.
        source, protocol: the data set, and the split whose training part was learned from.
        hold_out: what of that part was not learned from, or None.
        versions: of what trained it.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    genotype: dict[str, Any]
    channels: Positive
    layers: Positive
    classes: list[str]
    input_shape: tuple[Positive, Positive, Positive]
    joints: list[str]
    clip_settings: dict[str, Any]
    source: str
    protocol: str
    versions: dict[str, str]
    hold_out: HoldOut | None = None

    def make_network(self) -> Network:
        """Make the network, with fresh weights."""
        return Network(
            from_dict(self.genotype, "the model's genotype"),
            in_channels=self.input_shape[0],
            num_classes=len(self.classes),
            channels=self.channels,
            num_layers=self.layers,
        )

    def make_clip_settings(self) -> ClipSettings:
        """Return how the model's input is made from clips."""
        return ClipSettings(**self.clip_settings)


def save_model(folder: Path, network: Network, card: ModelCard) -> Path:
    """Write ``model.safetensors`` into a folder, atomically; returns its path."""
    description = json.dumps({"version": VERSION, **asdict(card)}, sort_keys=True)
    tensors = {name: t.detach().contiguous().cpu() for name, t in network.state_dict().items()}
    path = folder / MODEL
    runs.atomic_write(path, save(tensors, metadata={METADATA_KEY: description}))
    return path


def load_model(path: Path) -> tuple[Network, ModelCard]:
    """Load a model from its folder or its file, on the CPU and ready to be evaluated.

    Raises:
        InputError: there is no model, or it is not one of this version of skelnas.
    """
    file_path = path / MODEL if path.is_dir() else path
    if not file_path.is_file():
        raise InputError(
            f"{path}: holds no trained model: there is no {file_path.name}",
            hint="`skelnas train --out MODEL` writes it when it ends",
        )
    try:
        with safe_open(file_path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file_path}: not a readable safetensors file ({error})") from None
    except (KeyError, ValueError):
        raise InputError(
            f"{file_path}: not a model of skelnas: its metadata has no {METADATA_KEY!r} entry"
        ) from None
    if not isinstance(description, dict) or description.pop("version", None) != VERSION:
        raise InputError(
            f"{file_path}: not a model of version {VERSION}",
            hint="train it again with this skelnas",
        )
    try:
        card = TypeAdapter(ModelCard).validate_python(description)
        if card.input_shape[1] != card.make_clip_settings().frames:
            raise ValueError("two numbers of frames")
        network = _fill(card, tensors)
    except (TypeError, RuntimeError, ValueError) as error:
        reason = "; ".join(str(error).splitlines()[:3])
        raise InputError(f"{file_path}: weights and description disagree ({reason})") from None
    return network.eval(), card


def _fill(card: ModelCard, tensors: dict[str, Tensor]) -> Network:
    """Make the network around its weights; a description that does not fit them costs nothing.

    Raises:
        ValueError, RuntimeError: it does not fit.
    """
    genotype = from_dict(card.genotype, "the model's genotype")
    nodes = len(genotype.normal) + len(genotype.reduction)
    if card.layers > len(tensors) or nodes > len(tensors):
        raise ValueError(f"{card.layers} layers, {nodes} nodes, but {len(tensors)} tensors")
    with torch.device("meta"):  # shapes without memory
        network = card.make_network()
    network.load_state_dict(tensors, assign=True)
    return network
