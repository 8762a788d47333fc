"""Trained models on disk: one safetensors file with everything needed to use the model.

``model.safetensors`` holds the weights under their names in the network, and in the metadata key
``skelnas`` a sorted JSON object: `ModelCard.to_dict`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from skelnas.errors import InputError, SkelnasError
from skelnas.genotype import from_dict
from skelnas.models.branches import AnyNetwork
from skelnas.models.onnx_network import OnnxNetwork
from skelnas.runtime import files, onnx_files, tensor_files
from skelnas.training.card import ModelCard
from skelnas.training.run_dir import MODEL

METADATA_KEY = "skelnas"
VERSION = 1

MAX_EDGES = 100_000
"""Of all cells together, unless there are as many tensors: an identity has none."""

MAX_REASON_CHARS = 300
"""Of what PyTorch says is wrong, which may list all weights."""


class Model(nn.Module):
    """A trained network and its description: clips [N, C, T, V] to logits [N, classes].

    Attributes:
        network: the network; its weights have the same names as in the file, and ONNX Runtime has
            those of an ONNX file.
        card: describes the network, its training data and its input.
        revision: the commit on the Hugging Face Hub that it is of, if it came from there.
    """

    def __init__(self, network: AnyNetwork | OnnxNetwork, card: ModelCard) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.revision: str | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map clips [N, C, T, V] to logits [N, classes]."""
        logits: Tensor = self.network(x)
        return logits

    def checksum(self) -> str:
        """Return the CRC-32 of all weights in the order of their names, or of an ONNX file."""
        if isinstance(self.network, OnnxNetwork):
            return f"{crc32(self.network.data):08x}"
        checksum = 0
        for _, value in sorted(self.network.state_dict().items()):
            checksum = crc32(value.cpu().contiguous().numpy().tobytes(), checksum)
        return f"{checksum:08x}"


def card_facts(card: ModelCard) -> dict[str, Any]:
    """Return the JSON object that every model file carries, whatever its format."""
    facts = {"version": VERSION, **card.to_dict()}
    return {**facts, "trained_clips": card.trained_clips} if card.trained_clips else facts


def to_bytes(network: nn.Module, card: ModelCard) -> bytes:
    """Return the content of a model file."""
    return tensor_files.to_bytes(network.state_dict(), METADATA_KEY, card_facts(card))


def save_model(folder: Path, network: nn.Module, card: ModelCard) -> Path:
    """Write ``model.safetensors`` into a folder, atomically; return its path."""
    path = folder / MODEL
    files.atomic_write(path, to_bytes(network, card))
    return path


def find_model_file(path: Path | str) -> Path:
    """Return the file of a model, given the file or its folder.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    file = path / MODEL if path.is_dir() else path
    files.check_is_regular(file)
    if not file.is_file():
        inner = sorted(path.glob(f"*/{MODEL}"))
        if inner:
            hint = f"give one of the {len(inner)} trainings in it, such as {inner[0].parent}"
        elif file.suffix.lower() == onnx_files.SUFFIX:
            hint = "`skelnas export --out FILE` writes it"
        else:
            hint = "`skelnas train --out MODEL` writes it when it ends"
        if file is path:
            raise InputError(f"{path}: there is no such file or folder", hint=hint)
        raise InputError(f"{path}: holds no trained model: there is no {file.name}", hint=hint)
    return file


def load_model(path: Path | str) -> Model:
    """Load a model from its folder or its file, on the CPU and in evaluation mode.

    ONNX Runtime runs a model whose file ends in ``.onnx``.

    Raises:
        InputError: there is no model, or this version of skelnas cannot read it.
        SkelnasError: the extra ``onnx`` is needed, and not installed.
    """
    file_path = find_model_file(path)
    content: bytes | dict[str, Tensor]
    try:
        if file_path.suffix.lower() == onnx_files.SUFFIX:
            content, description = onnx_files.read(file_path, METADATA_KEY)
        else:
            content, description = tensor_files.read(file_path, METADATA_KEY)
    except ValueError as error:
        raise _not_a_model_error(file_path, error) from None
    if description.pop("version", None) != VERSION:
        raise InputError(
            f"{file_path}: not a model of version {VERSION}",
            hint="train it again with this skelnas",
        )
    try:
        card = TypeAdapter(ModelCard).validate_python(description)
        if card.input_shape[1] != card.make_clip_settings().frames:
            raise ValueError("input_shape and clip_settings disagree on the frames")
        if isinstance(content, bytes):
            network: AnyNetwork | OnnxNetwork = _open_network(card, content)
        else:
            network = _build_network(card, content)
    except (TypeError, RuntimeError, ValueError, SkelnasError) as error:
        reason = "; ".join(str(error).splitlines()[:3])[:MAX_REASON_CHARS]
        raise InputError(f"{file_path}: weights and description disagree ({reason})") from None
    return Model(network, card).eval()


def _not_a_model_error(path: Path, reason: ValueError) -> InputError:
    if zipfile.is_zipfile(path):
        return InputError(
            f"{path}: not a skelnas model, but an archive of PyTorch, such as TorchScript",
            hint="skelnas does not run TorchScript: give the model folder that it was exported "
            "from, or its export as .onnx",
        )
    return InputError(
        f"{path}: not a skelnas model ({reason})",
        hint="a model is a folder of `skelnas train`, or a .safetensors or .onnx of "
        "`skelnas export`",
    )


def _build_network(card: ModelCard, tensors: dict[str, Tensor]) -> AnyNetwork:
    """Build the network around its weights.

    A description of a much larger network than the weights are of is refused before it is built.

    Raises:
        ValueError, RuntimeError: the weights do not fit the description.
    """
    _check_size(card, len(tensors), sum(map(Tensor.numel, tensors.values())))
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} has numbers that are not finite")
    with torch.device("meta"):  # shapes without memory
        network = card.make_network()
    for name, parameter in network.state_dict().items():
        if name in tensors and tensors[name].dtype != parameter.dtype:
            raise ValueError(f"{name} is {tensors[name].dtype}, expected {parameter.dtype}")
    network.load_state_dict(tensors, assign=True)
    return network


def _open_network(card: ModelCard, data: bytes) -> OnnxNetwork:
    """Open the network of an ONNX file.

    Raises:
        ValueError: it does not fit the description.
    """
    network = OnnxNetwork(data)
    if (network.input_shape, network.num_classes) != (card.input_shape, len(card.classes)):
        raise ValueError(
            f"it maps clips of {network.input_shape} to {network.num_classes} logits, expected "
            f"{card.input_shape} and {len(card.classes)}"
        )
    _check_size(card, network.num_tensors, len(data))
    with torch.device("meta"):
        num_weights = sum(map(Tensor.numel, card.make_network().parameters()))
    if num_weights > len(data):
        raise ValueError(f"{num_weights:,} weights in {len(data):,} bytes")
    return network


def _check_size(card: ModelCard, num_tensors: int, num_numbers: int) -> None:
    """Check, before a network is built, that it is not much larger than a file's weights.

    Raises:
        ValueError: it is.
    """
    if card.baseline is None:
        genotype = from_dict(card.genotype, "the model's genotype")
        layers = card.layers or 0
        num_edges = layers * max(
            sum(map(len, cell)) for cell in (genotype.normal, genotype.reduction)
        )
        if layers > num_tensors or num_edges > max(MAX_EDGES, num_tensors):
            raise ValueError(f"{layers} layers, {num_edges:,} edges, but {num_tensors} tensors")
    elif card.bones and len(card.joints) ** 2 > num_numbers:
        raise ValueError(f"{len(card.joints)} joints, but fewer weights than pairs of joints")
