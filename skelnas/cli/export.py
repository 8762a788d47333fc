"""`export`: a model as a file for another runtime."""

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
        typer.Option(
            help="ONNX (extra: onnx), TorchScript, or a model.safetensors that skelnas loads; in "
            "all of them normalisation is folded into convolutions.",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Write a model as a file for another runtime, and check it against the model.

    Takes any number of clips at once; says its classes and how its input is made. An export that
    is there already is replaced, and only by one that computes what the model does.

    Example: skelnas export models/xsub --format onnx --out xsub.onnx
    """
    from skelnas.evaluation.export import export as export_verb

    written = export_verb(model, out, format)
    if as_json:
        console.result(json.dumps(written.to_dict()))
        return
    opset = f", opset {written.opset}" if written.opset else ""
    console.result(
        f"{written.path}: {written.bytes / 1e6:.2f} MB (the model: "
        f"{written.model_bytes / 1e6:.2f} MB){opset}; logits up to {written.largest_logit:.3g} "
        f"differ by at most {written.largest_difference:.1e}"
    )
