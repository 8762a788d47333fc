"""`skelnas export`: model → one file for another runtime, checked against the model itself."""

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
"""Names of what an ONNX network takes and gives."""

OPSET = 18
"""Of ONNX: the first that PyTorch's exporter writes, known to runtimes since 2023."""

TORCHSCRIPT_METADATA = "skelnas.json"
"""The extra file of a TorchScript archive that says what the network is."""

BATCHES = (1, 3)
"""Numbers of clips that an exported network is checked with: neither is that of the export."""

MOST_DIFFERENCE = 1e-4
"""Of logits, relative to the largest: sums of thousands of products in float32, in another order.
"""

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how far it is from the model.

    Attributes:
        path, format: the file.
        bytes: its size.
        model_bytes: the size of ``model.safetensors``.
        opset: of ONNX, or None.
        largest_difference: between logits of the file and of the model, on clips of noise.
        largest_logit: of the model on the same clips.
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
    """Write a model as a file for another runtime.

    Normalisation is folded into convolutions where that is exact. The file takes any number of
    clips, and says what it is in the words of ``model.safetensors``.

    Args:
        model_path: a model folder or a ``model.safetensors``.
        out: the file to write; one that is there is replaced.
        format: see `ExportFormat`.

    Raises:
        InputError: there is no model.
        UsageError: `out` cannot be written to or is the model, or the format lacks what the
            network does.
        SkelnasError: a package is missing, or the file would not compute what the model does.
    """
    source = find_model_file(model_path)
    _check_out(out, source)
    model = load_model(source)
    folded = Model(fold(model.network), replace(model.card, folded=True))
    data, run = WRITERS[format](folded)
    difference, largest = _compare(model, run)
    if not difference <= MOST_DIFFERENCE * max(1.0, largest):
        raise SkelnasError(
            f"{out}: as {format} the logits differ by {difference:.2g} from the model's, which "
            f"are up to {largest:.2g}; nothing was written",
            hint="this is a bug, of skelnas or of the package that writes or runs the format",
        )
    files.atomic_write(out, data)
    opset = OPSET if format == "onnx" else None
    return Exported(str(out), format, len(data), source.stat().st_size, opset, difference, largest)


def _check_out(out: Path, source: Path) -> None:
    if out.is_dir():
        raise UsageError(f"{out}: is a folder, expected a file", hint="name a file in it")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", hint="make it first")
    if out.resolve() == source.resolve():
        raise UsageError(f"{out}: is the model itself", hint="choose another --out")


@torch.no_grad()
def _compare(model: Model, run: Run) -> tuple[float, float]:
    """Return how far logits are from the model's, and how large these are, on clips of noise."""
    generator = torch.Generator().manual_seed(seed.random_seed(0))
    difference = largest = 0.0
    for count in BATCHES:
        clips = torch.randn(count, *model.card.input_shape, generator=generator)
        expected = model(clips)
        found = run(clips)
        if found.shape != expected.shape:
            return float("inf"), largest
        away = (found - expected).abs().nan_to_num(nan=float("inf"))
        difference = max(difference, float(away.max()))
        largest = max(largest, float(expected.abs().max()))
    return difference, largest


def _to_safetensors(model: Model) -> tuple[bytes, Run]:
    data = to_bytes(model.network, model.card)
    network = model.card.make_network()
    network.load_state_dict(load(data))
    return data, network.eval()


def _to_torchscript(model: Model) -> tuple[bytes, Run]:
    devices.move(model, torch.device("cpu"))  # the order of the weights is kept in the file
    with _deprecated(DeprecationWarning, r"`torch\.jit\.\w+` is deprecated"):
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            model.network, _example(model), check_trace=False
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
            f"ONNX has no maximum over parts of any size, which {model.card.baseline} needs",
            hint="--format torchscript has",
        )
    noise = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = noise.level
    noise.setLevel(logging.ERROR)  # it tells everybody that torchvision is not installed
    try:
        with _deprecated(FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"):
            program = torch.onnx.export(
                model.network,
                (_example(model),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    finally:
        noise.setLevel(level)
    assert program is not None
    proto = program.model_proto
    _forget_sources(proto)
    onnx.helper.set_model_props(proto, {METADATA_KEY: card_to_json(model.card)})
    data: bytes = proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(clips: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: clips.numpy()})
        return torch.from_numpy(np.asarray(logits))

    return data, run


def _forget_sources(proto: Any) -> None:
    """Take out from which line of which file of this machine each step came."""
    graph = proto.graph
    for thing in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del thing.metadata_props[:]
        thing.ClearField("doc_string")


def _example(model: Model) -> Tensor:
    return torch.zeros(2, *model.card.input_shape)


@contextmanager
def _deprecated(category: type[Warning], message: str) -> Iterator[None]:
    """Leave out what PyTorch says of ways that it will take away one day."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield


WRITERS: dict[ExportFormat, Callable[[Model], tuple[bytes, Run]]] = {
    "onnx": _to_onnx,
    "torchscript": _to_torchscript,
    "safetensors-fused": _to_safetensors,
}
