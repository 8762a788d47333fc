"""`skelnas export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from skelnas.cli.options import Json, ModelArgument, with_settings
from skelnas.config import ExportFormat, QuantizeSettings
from skelnas.errors import UsageError
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.evaluation.export import Exported
    from skelnas.evaluation.quantize import Quantization


@with_settings(QuantizeSettings)
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False)],
    format: Annotated[
        ExportFormat | None,
        typer.Option(help="onnx, torchscript or safetensors-fused."),
    ] = None,
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(metavar="int8", help="Round weights and activations; onnx only."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="For --quantize: the cache of the training.")
    ] = None,
    as_json: Json = False,
    *,
    settings: QuantizeSettings,
) -> None:
    """Export a model to another runtime and verify the result.

    The exported model takes batches of any size and describes its classes and its input.
    BatchNorm is folded into the convolutions. An existing file is replaced only if the new one
    reproduces the outputs of the model; int8 cannot, so the loss of accuracy is measured. skelnas
    itself runs .onnx (extra: onnx) and .safetensors.

    Examples:
        skelnas export models/xsub --out xsub.onnx
        skelnas export models/xsub --out xsub.pt --json
        skelnas export models/xsub --out xsub.onnx --quantize int8 --cache ntu60.h5
    """
    from skelnas.evaluation.export import choose_format
    from skelnas.evaluation.export import export as run
    from skelnas.evaluation.quantize import quantize as run_quantized

    if quantize is None and cache is not None:
        raise UsageError(
            "--cache has the clips for --quantize, which is not given",
            hint="leave out --cache, or add --quantize int8",
        )
    if quantize is None:
        exported = run(model, out, format)
        console.result(json.dumps(exported.to_dict()) if as_json else _exported_to_text(exported))
        return
    if choose_format(out, format) != "onnx":
        raise UsageError(
            f"{out}: --quantize is for ONNX only", hint="name a file that ends in .onnx"
        )
    if cache is None:
        raise UsageError(
            "--quantize needs clips to choose ranges by",
            hint="--cache CACHE names the cache that the model was trained on",
        )
    quantized = run_quantized(cache, model, out, settings)
    console.result(json.dumps(quantized.to_dict()) if as_json else _quantized_to_text(quantized))


def _exported_to_text(exported: Exported) -> str:
    opset = f", opset {exported.opset}" if exported.opset else ""
    return (
        f"{exported.path}: {exported.bytes / 1e6:.2f} MB (the model: "
        f"{exported.model_bytes / 1e6:.2f} MB){opset}; logits up to {exported.largest_logit:.3g} "
        f"differ by at most {exported.largest_difference:.1e}"
    )


def _quantized_to_text(quantized: Quantization) -> str:
    return (
        f"{quantized.path}: {quantized.bytes / 1e6:.2f} MB in int8 (in float32: "
        f"{quantized.float_bytes / 1e6:.2f} MB); on {quantized.clips:,} {quantized.part} clips of "
        f"{quantized.protocol}, top-1 is {quantized.top1:.2%}, the model's "
        f"{quantized.model_top1:.2%}, and {quantized.agreement:.2%} of the clips get the same class"
    )
