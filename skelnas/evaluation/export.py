"""`skelnas export`: model → a file for another runtime, checked against the model."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from skelnas.config import ExportFormat
from skelnas.errors import SkelnasError, UsageError
from skelnas.models.fold import fold
from skelnas.models.onnx_network import INPUT, OUTPUT, OnnxNetwork
from skelnas.runtime import devices, files, onnx_files, seed
from skelnas.training.inference import check_finite
from skelnas.training.saved_model import (
    METADATA_KEY,
    Model,
    card_facts,
    find_model_file,
    load_model,
    to_bytes,
)

SUFFIXES: dict[str, ExportFormat] = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".ts": "torchscript",
    ".safetensors": "safetensors-fused",
}
"""The format of a file, by the end of its name."""

OPSET = 18
"""The first ONNX opset that PyTorch's exporter writes, supported by runtimes since 2023."""

TORCHSCRIPT_METADATA = "skelnas.json"
"""The extra file in a TorchScript archive that holds the description of the model."""

EXPORT_BATCH_SIZE = 2
CHECKED_BATCH_SIZES = (1, 3)
"""Both differ from the batch size of the export, so that a fixed batch size is found."""

MAX_RELATIVE_DIFFERENCE = 1e-4
"""Of logits: float32 sums of thousands of products may be added in another order."""

Run = Callable[[Tensor], Tensor]
"""Maps clips [N, C, T, V] to logits [N, classes]."""


@dataclass(frozen=True)
class Exported:
    """An exported file, and how closely it matches the model.

    Attributes:
        path, format: of the file.
        bytes: size of the file.
        model_bytes: size of ``model.safetensors``.
        opset: of ONNX, or None.
        largest_difference: between the logits of the file and of the model, on random input.
        largest_logit: of the model on the same input, in absolute value.
    """

    path: str
    format: ExportFormat
    bytes: int
    model_bytes: int
    opset: int | None
    largest_difference: float
    largest_logit: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain containers, for JSON."""
        return asdict(self)


def export(model_path: Path | str, out: Path | str, format: ExportFormat | None = None) -> Exported:
    """Export a model to a file for another runtime.

    Normalisation is folded into convolutions where that is exact. The file takes batches of any
    size, and holds the same description as ``model.safetensors``.

    Args:
        model_path: a model folder or a ``model.safetensors``.
        out: the file to write; an existing file is replaced.
        format: see `ExportFormat`; None for that of the name.

    Raises:
        InputError: there is no model, or its scores are not finite.
        UsageError: `out` cannot be written to, is the model itself or has the name of another
            format; or the format does not support an operation of the network.
        SkelnasError: a package is missing, or the exported network computes something else.
    """
    out = Path(out)
    format = choose_format(out, format)
    source, model = load_source(model_path, out)
    data, difference, largest = write_checked(model, format, out)
    files.atomic_write(out, data)
    return Exported(
        path=str(out),
        format=format,
        bytes=len(data),
        model_bytes=source.stat().st_size,
        opset=OPSET if format == "onnx" else None,
        largest_difference=difference,
        largest_logit=largest,
    )


def choose_format(out: Path, format: ExportFormat | None) -> ExportFormat:
    """Return the format of a file: the requested one, or that of its name.

    Raises:
        UsageError: the name says another, or none.
    """
    named = SUFFIXES.get(out.suffix.lower())
    if format is None and named is None:
        raise UsageError(
            f"{out}: its name says no format",
            hint=f"name a file that ends in {', '.join(SUFFIXES)}, or give --format",
        )
    if format is not None and named not in (None, format):
        endings = ", ".join(suffix for suffix, other in SUFFIXES.items() if other == format)
        raise UsageError(
            f"{out}: its name says {named}, not {format}",
            hint=f"leave out --format; names of {format} end in {endings}",
        )
    chosen = format or named
    assert chosen is not None
    return chosen


def load_source(model_path: Path | str, out: Path) -> tuple[Path, Model]:
    """Load the model to export, and check that `out` can be written; return its file, too.

    Raises:
        InputError: there is no model.
        UsageError: it is an ONNX file, or `out` is the model itself or cannot be written.
    """
    source = find_model_file(model_path)
    files.check_output(out)
    if files.real_path(out) == files.real_path(source):
        raise UsageError(f"{out}: is the model itself", hint="choose another --out")
    model = load_model(source)
    if isinstance(model.network, OnnxNetwork):
        raise UsageError(
            f"{source}: is an export, whose weights only ONNX Runtime has",
            hint="export the model folder that it was made from",
        )
    return source, model


def write_checked(model: Model, format: ExportFormat, out: Path) -> tuple[bytes, float, float]:
    """Return the content of an exported file, after a comparison with the model.

    Args:
        model: with its weights in PyTorch.
        format: of the file.
        out: the file, for messages.

    Returns:
        The content; the largest difference between logits, and the largest logit of the model.

    Raises:
        NotFinite: the model's logits are not finite.
        UsageError: the format does not support an operation of the network.
        SkelnasError: a package is missing, or the exported network computes something else.
    """
    folded = Model(fold(model.network), replace(model.card, folded=True))
    data, run = WRITERS[format](folded)
    difference, largest = _compare(model, run)
    if not difference <= MAX_RELATIVE_DIFFERENCE * max(1.0, largest):
        raise SkelnasError(
            f"{out}: as {format} the logits differ by {difference:.2g} from the model's, which "
            f"are up to {largest:.2g}; nothing was written",
            hint="this is a bug, of skelnas or of the package that writes or runs the format",
        )
    return data, difference, largest


@torch.no_grad()
def _compare(model: Model, run: Run) -> tuple[float, float]:
    """Return the largest difference from the model's logits, and the largest of these.

    Raises:
        NotFinite: a logit of the model is not finite.
    """
    generator = torch.Generator().manual_seed(seed.random_seed(0))
    difference = largest = 0.0
    for batch_size in CHECKED_BATCH_SIZES:
        clips = torch.randn(batch_size, *model.card.input_shape, generator=generator)
        expected = model(clips)
        check_finite(expected, ["noise"] * batch_size)
        logits = run(clips)
        if logits.shape != expected.shape:
            return float("inf"), largest
        errors = (logits - expected).abs().nan_to_num(nan=float("inf"))
        difference = max(difference, float(errors.max()))
        largest = max(largest, float(expected.abs().max()))
    return difference, largest


def _to_safetensors(model: Model) -> tuple[bytes, Run]:
    data = to_bytes(model.network, model.card)
    network = model.card.make_network()
    network.load_state_dict(load(data))
    return data, network.eval()


def _to_torchscript(model: Model) -> tuple[bytes, Run]:
    devices.move(model, torch.device("cpu"))  # the file keeps their memory layout
    with _ignoring(DeprecationWarning, r"`torch\.jit\.\w+` is deprecated"):
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            model.network, _example_input(model), check_trace=False
        )
        file = io.BytesIO()
        extra = {TORCHSCRIPT_METADATA: json.dumps(card_facts(model.card), sort_keys=True)}
        torch.jit.save(traced, file, _extra_files=extra)
        loaded: Run = torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(file.getvalue())
        )
    return file.getvalue(), loaded


def _to_onnx(model: Model) -> tuple[bytes, Run]:
    onnx_files.check_packages("writing ONNX", "onnxscript")  # PyTorch's exporter needs that
    if any(isinstance(module, nn.AdaptiveMaxPool2d) for module in model.modules()):
        raise UsageError(
            f"ONNX has no adaptive max pooling, which {model.card.baseline} needs",
            hint="--format torchscript supports it",
        )
    proto = _trace_onnx(model)
    _strip_sources(proto)
    network: bytes = proto.SerializeToString()
    return onnx_files.to_bytes(network, METADATA_KEY, card_facts(model.card)), OnnxNetwork(network)


def _trace_onnx(model: Model) -> Any:
    """Return a network as an ONNX ``ModelProto``."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision is not installed
    try:
        with _ignoring(FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"):
            program = torch.onnx.export(
                model.network,
                (_example_input(model),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    return program.model_proto


def _strip_sources(proto: Any) -> None:
    """Remove the file and line on this machine that each node came from."""
    graph = proto.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]
        item.ClearField("doc_string")


def _example_input(model: Model) -> Tensor:
    return torch.zeros(EXPORT_BATCH_SIZE, *model.card.input_shape)


@contextmanager
def _ignoring(category: type[Warning], message: str) -> Iterator[None]:
    """Ignore a deprecation warning of PyTorch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield


WRITERS: dict[ExportFormat, Callable[[Model], tuple[bytes, Run]]] = {
    "onnx": _to_onnx,
    "torchscript": _to_torchscript,
    "safetensors-fused": _to_safetensors,
}
