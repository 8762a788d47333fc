"""Measure size and latency of a model and its exports, and the latency of a stream's window.

    python benchmarks/deploy.py models/xsub --out benchmarks/results/deploy.json

Clips run one at a time on one thread of a CPU. Times are CPU times, so that other work on the
machine does not count. The formats take turns, pass by pass, so that disturbed caches affect all of
them alike. The first passes are not counted.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from about import about

from skelnas.config import PredictSettings
from skelnas.evaluation.export import export
from skelnas.evaluation.predict import predict_stream
from skelnas.models.complexity import measure
from skelnas.training.saved_model import Model, find_model_file, load_model

WARM_UP = 3
THREADS = 1


def export_all(path: Path, folder: Path) -> dict[str, tuple[int, Callable[[torch.Tensor], object]]]:
    """Export a model in each format; return the size of each file and a function that runs it."""
    files = {
        name: Path(export(path, folder / name, name).path)
        for name in ("safetensors-fused", "torchscript", "onnx")
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(files["onnx"], options, ["CPUExecutionProvider"])
    runs: dict[str, Callable[[torch.Tensor], object]] = {
        "model": channels_last(load_model(path)),
        "safetensors-fused": channels_last(load_model(files["safetensors-fused"])),
        "torchscript": torch.jit.load(io.BytesIO(files["torchscript"].read_bytes())),
        "onnx": lambda clips: session.run(None, {"clips": clips.numpy()}),
    }
    files["model"] = find_model_file(path)
    return {name: (files[name].stat().st_size, run) for name, run in runs.items()}


def channels_last(model: Model) -> Model:
    """Convert a model to the memory format that skelnas runs it in."""
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def time_all(path: Path, passes: int) -> dict[str, Any]:
    """Time a model in all formats."""
    model = load_model(path)
    clip = torch.randn(1, *model.card.input_shape)
    with tempfile.TemporaryDirectory() as folder:
        found = export_all(path, Path(folder))
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(WARM_UP + passes):
        for name, (_, run) in found.items():
            started = time.process_time()
            run(clip)
            times[name].append(1000 * (time.process_time() - started))
    complexity = measure(model.network, model.card.input_shape)
    return {
        "input_shape": list(model.card.input_shape),
        "parameters": complexity.parameters,
        "macs": complexity.macs,
        "ways": {
            name: {"bytes": size, **summary(times[name][WARM_UP:])}
            for name, (size, _) in found.items()
        },
        "stream": summary(stream(model, passes)),
    }


def stream(model: Model, windows: int) -> list[float]:
    """Return the times from the last frame of each window to its prediction, in milliseconds."""
    origin, settings = model.card.find_origin(), PredictSettings(device="cpu", threads=THREADS)
    frames = model.card.input_shape[1] + settings.stride * (windows - 1)
    shape = (origin.max_persons, len(origin.layout.joints), len(origin.layout.channels))
    poses = np.random.default_rng(0).normal(0, 1, (frames, *shape))
    lines = [json.dumps(pose.tolist()) for pose in poses]
    started: list[float] = []

    def clocked() -> Iterator[str]:
        for line in lines:
            started.append(time.process_time())
            yield line

    return [
        1000 * (time.process_time() - started[-1])
        for _ in predict_stream(model, clocked(), settings)
    ]


def summary(times: list[float]) -> dict[str, float]:
    """Return median and spread of times."""
    low, median, high = np.percentile(times, [5, 50, 95])
    return {"median_ms": round(median, 2), "p5_ms": round(low, 2), "p95_ms": round(high, 2)}


def main() -> None:
    """Measure all models and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--passes", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    results = [
        {"model": path.name, **time_all(path, arguments.passes)} for path in arguments.models
    ]
    found = {"about": about("cpu"), "onnxruntime": onnxruntime.__version__, "results": results}
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    for result in results:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
