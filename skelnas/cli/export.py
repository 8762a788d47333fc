"""`skelnas export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from skelnas.cli.options import Json, ModelArgument
from skelnas.config import ExportFormat
from skelnas.runtime import console


def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False)],
    format: Annotated[
        ExportFormat,
        typer.Option(help="onnx, torchscript or safetensors-fused.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Export a model to another runtime and verify the result.

    The exported model takes batches of any size and describes its classes and its input.
    BatchNorm is folded into the convolutions. An existing file is replaced only if the new one
    reproduces the outputs of the model. The format onnx needs the extra onnx; skelnas itself
    loads safetensors-fused.

    Examples:
        skelnas export models/xsub --format onnx --out xsub.onnx
        skelnas export models/xsub --format torchscript --out xsub.pt --json
        skelnas export models/xsub --format safetensors-fused --out xsub.safetensors
    """
    from skelnas.evaluation.export import export as run

    exported = run(model, out, format)
    if as_json:
        console.result(json.dumps(exported.to_dict()))
        return
    opset = f", opset {exported.opset}" if exported.opset else ""
    console.result(
        f"{exported.path}: {exported.bytes / 1e6:.2f} MB (the model: "
        f"{exported.model_bytes / 1e6:.2f} MB){opset}; logits up to {exported.largest_logit:.3g} "
        f"differ by at most {exported.largest_difference:.1e}"
    )
