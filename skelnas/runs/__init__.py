"""Run folders: what a long piece of work keeps, so that it can be stopped and go on.

A folder holds ``config.json`` (what was asked, and the versions that did it),
``metrics.jsonl`` (one line an epoch), ``alphas.jsonl`` in a search (likewise),
``checkpoint.safetensors`` (everything that the next step depends on) and, after training,
``model.safetensors``. Files that matter are
written beside themselves and renamed, so that a run killed at any moment leaves the last
good ones.

Randomness is a function of the seed and of the place in the run, never of what was drawn
before: a run that resumes needs no generator's state to draw what it would have drawn.
"""

from skelnas.runs.files import (
    ALPHAS,
    CHECKPOINT,
    CONFIG,
    LOCK,
    METRICS,
    MODEL,
    REPEATS,
    TENSORBOARD,
    atomic_write,
    to_json,
    versions,
)
from skelnas.runs.folder import Mirror, Run, forget, start
from skelnas.runs.reading import SearchRun, read_config, read_lines, read_search
from skelnas.runs.seeds import random_seed
from skelnas.runs.stopping import StopFlag, stop_on_signal

__all__ = [
    "ALPHAS",
    "CHECKPOINT",
    "CONFIG",
    "LOCK",
    "METRICS",
    "MODEL",
    "REPEATS",
    "TENSORBOARD",
    "Mirror",
    "Run",
    "SearchRun",
    "StopFlag",
    "atomic_write",
    "forget",
    "random_seed",
    "read_config",
    "read_lines",
    "read_search",
    "start",
    "stop_on_signal",
    "to_json",
    "versions",
]
