"""`skelnas export`: model → a file for another runtime, checked against the model."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from skelnas.config import ExportFormat
from skelnas.errors import SkelnasError, UsageError
from skelnas.models.fold import fold
from skelnas.runtime import devices, files, seed
from skelnas.training.saved_model import (
    METADATA_KEY,
    Model,
    card_to_json,
    find_model_file,
    load_model,
    to_bytes,
)

INPUT, OUTPUT = "clips", "logits"
"""Names of the input and output of an ONNX network."""

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


def export(model_path: Path, out: Path, format: ExportFormat) -> Exported:
    """Export a model to a file for another runtime.

    Normalisation is folded into convolutions where that is exact. The file takes batches of any
    size, and holds the same description as ``model.safetensors``.

    Args:
        model_path: a model folder or a ``model.safetensors``.
        out: the file to write; an existing file is replaced.
        format: see `ExportFormat`.

    Raises:
        InputError: there is no model.
        UsageError: `out` cannot be written to or is the model itself, or the format does not
            support an operation of the network.
        SkelnasError: a package is missing, or the exported network computes something else.
    """
    source = find_model_file(model_path)
    _check_out(out, source)
    model = load_model(source)
    folded = Model(fold(model.network), replace(model.card, folded=True))
    data, run = WRITERS[format](folded)
    difference, largest = _compare(model, run)
    if not difference <= MAX_RELATIVE_DIFFERENCE * max(1.0, largest):
        raise SkelnasError(
            f"{out}: as {format} the logits differ by {difference:.2g} from the model's, which "
            f"are up to {largest:.2g}; nothing was written",
            hint="this is a bug, of skelnas or of the package that writes or runs the format",
        )
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


def _check_out(out: Path, source: Path) -> None:
    files.check_output(out)
    if files.real_path(out) == files.real_path(source):
        raise UsageError(f"{out}: is the model itself", hint="choose another --out")


@torch.no_grad()
def _compare(model: Model, run: Run) -> tuple[float, float]:
    """Return the largest difference from the model's logits, and the largest of these."""
    generator = torch.Generator().manual_seed(seed.random_seed(0))
    difference = largest = 0.0
    for batch_size in CHECKED_BATCH_SIZES:
        clips = torch.randn(batch_size, *model.card.input_shape, generator=generator)
        expected = model(clips)
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
        extra = {TORCHSCRIPT_METADATA: card_to_json(model.card)}
        torch.jit.save(traced, file, _extra_files=extra)
        loaded: Run = torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(file.getvalue())
        )
    return file.getvalue(), loaded


def _to_onnx(model: Model) -> tuple[bytes, Run]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # PyTorch's exporter needs it
    except ImportError as error:
        raise SkelnasError(
            f"writing ONNX needs {error.name}", hint="pip install 'skelnas[onnx]'"
        ) from None
    if any(isinstance(module, nn.AdaptiveMaxPool2d) for module in model.modules()):
        raise UsageError(
            f"ONNX has no adaptive max pooling, which {model.card.baseline} needs",
            hint="--format torchscript supports it",
        )
    proto = _trace_onnx(model)
    _strip_sources(proto)
    onnx.helper.set_model_props(proto, {METADATA_KEY: card_to_json(model.card)})
    data: bytes = proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(clips: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: clips.numpy()})
        return torch.from_numpy(np.asarray(logits))

    return data, run


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
