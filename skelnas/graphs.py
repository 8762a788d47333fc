"""A step that changes tensors in place, recorded as a CUDA graph and replayed.

Thousands of kernels are then started by one call. A step can be recorded if it never waits for
the device and finds all its inputs in the same places each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skelnas.batches import Batch
from skelnas.console import note
from skelnas.errors import is_out_of_memory

Step = Callable[[Batch, Batch], Tensor]
"""Learns from two batches."""

REHEARSALS = 3
"""Steps with batches of a shape before they are recorded: libraries choose their kernels, and
optimisers make their state (PyTorch's documentation asks for a few)."""


class Recorded:
    """A step on CUDA that is recorded for each shape of its batches, after a few rehearsals.

    A rehearsal is a step like any other, and so is a replay. Where recording fails, the step
    goes on unrecorded and says so.

    Args:
        step: reads and changes tensors that stay where they are; never waits for the device.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._rehearsed: Counter[Any] = Counter()
        self._graphs: dict[Any, _Graph] = {}
        self._works = True

    def __call__(self, training: Batch, validation: Batch) -> Tensor:
        """Take a step."""
        batches = training, validation
        key = tuple((batch.x.shape, batch.share) for batch in batches)
        if key in self._graphs:
            return self._graphs[key].replay(batches)
        if not self._works or self._rehearsed[key] < REHEARSALS:
            self._rehearsed[key] += 1
            return aside(self._step, batches)
        try:
            self._graphs[key] = _Graph(self._step, batches)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._works = False
            reason = str(error).splitlines()[0]
            note(f"the step cannot be recorded as a CUDA graph, and runs as it is: {reason}")
        return self(training, validation)


class _Graph:
    """One recording: the kernels of a step, and where they read their batches."""

    def __init__(self, step: Step, batches: tuple[Batch, Batch]) -> None:
        self._inputs = [Batch(b.x.clone(), b.labels.clone(), b.share) for b in batches]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):  # nothing is computed yet
            self._output = step(self._inputs[0], self._inputs[1])

    def replay(self, batches: tuple[Batch, Batch]) -> Tensor:
        """Take the recorded step on other batches of the same shapes."""
        for own, batch in zip(self._inputs, batches, strict=True):
            own.x.copy_(batch.x)
            own.labels.copy_(batch.labels)
        self._graph.replay()
        return self._output.clone()


def aside(step: Step, batches: tuple[Batch, Batch]) -> Tensor:
    """Take a step on another stream, as a step has to be that is to be recorded later."""
    main = torch.cuda.current_stream()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        output = step(*batches)
    main.wait_stream(stream)
    return output
