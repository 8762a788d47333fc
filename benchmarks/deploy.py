"""Measure size and latency of a model and its exports, and the latency of a stream's window.

    python benchmarks/deploy.py --model models/xsub ntu60.h5 --out benchmarks/results/deploy.json

Each --model is followed by the cache that it was trained on, whose training clips choose the ranges
of int8 and whose test clips are scored.

Clips run one at a time on one thread of a CPU. Times are CPU times, so that other work on the
machine does not count. The formats take turns, pass by pass, so that disturbed caches affect all of
them alike: compare the ratios, medians over the passes of the time relative to the model's in the
same pass. The first passes are not counted.
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
from skelnas.evaluation.quantize import Quantization, quantize
from skelnas.models.complexity import measure
from skelnas.training.saved_model import Model, find_model_file, load_model

WARM_UP = 3
THREADS = 1


Run = Callable[[torch.Tensor], object]


def export_all(
    path: Path, cache: Path, folder: Path
) -> tuple[dict[str, tuple[int, Run]], Quantization]:
    """Export a model in each format.

    Returns:
        The size of each file and a function that runs it; and what int8 lost.
    """
    files = {
        name: Path(export(path, folder / name, name).path)
        for name in ("safetensors-fused", "torchscript", "onnx")
    }
    lost = quantize(cache, path, folder / "int8")
    files["onnx int8"] = Path(lost.path)
    runs: dict[str, Run] = {
        "model": channels_last(load_model(path)),
        "safetensors-fused": channels_last(load_model(files["safetensors-fused"])),
        "torchscript": torch.jit.load(io.BytesIO(files["torchscript"].read_bytes())),
        "onnx": open_session(files["onnx"]),
        "onnx int8": open_session(files["onnx int8"]),
    }
    files["model"] = find_model_file(path)
    return {name: (files[name].stat().st_size, run) for name, run in runs.items()}, lost


def open_session(file: Path) -> Run:
    """Return a function that runs an ONNX file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    return lambda clips: session.run(None, {"clips": clips.numpy()})


def channels_last(model: Model) -> Model:
    """Convert a model to the memory format that skelnas runs it in."""
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def time_all(path: Path, cache: Path, passes: int) -> dict[str, Any]:
    """Time a model in all formats."""
    model = load_model(path)
    clip = torch.randn(1, *model.card.input_shape)
    with tempfile.TemporaryDirectory() as folder:
        found, lost = export_all(path, cache, Path(folder))
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
            name: {
                "bytes": size,
                **summary(times[name][WARM_UP:]),
                "ratio": ratio(times[name][WARM_UP:], times["model"][WARM_UP:]),
            }
            for name, (size, _) in found.items()
        },
        "int8": {name: value for name, value in lost.to_dict().items() if name != "path"},
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
    """Return minimum, median and spread of times."""
    low, median, high = np.percentile(times, [5, 50, 95])
    return {
        "min_ms": round(min(times), 2),
        "median_ms": round(median, 2),
        "p5_ms": round(low, 2),
        "p95_ms": round(high, 2),
    }


def ratio(times: list[float], others: list[float]) -> float:
    """Return the median ratio of times that were measured in turns."""
    return round(float(np.median(np.divide(times, others))), 3)


def main() -> None:
    """Measure all models and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, nargs=2, action="append", required=True, metavar=("MODEL", "CACHE")
    )
    parser.add_argument("--passes", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    results = [
        {"model": path.name, **time_all(path, cache, arguments.passes)}
        for path, cache in arguments.model
    ]
    found = {"about": about("cpu"), "onnxruntime": onnxruntime.__version__, "results": results}
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    for result in results:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
