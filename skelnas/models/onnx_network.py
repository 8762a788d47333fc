"""A network in an ONNX file, run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

INPUT, OUTPUT = "clips", "logits"
"""Names of the input and output of a network."""

FATAL = 4
"""Level of what ONNX Runtime prints; its errors are raised, too."""

MAX_REASON_CHARS = 200
"""Of what ONNX Runtime says is wrong."""


class OnnxNetwork(nn.Module):
    """A network that ONNX Runtime runs, on the CPU; PyTorch sees no weights.

    Args:
        data: the content of an ONNX file.

    Attributes:
        data: the content.
        input_shape: (C, T, V) of a clip.
        num_classes: number of logits.
        num_tensors: number of weight tensors in the file.

    Raises:
        ValueError: ONNX Runtime refuses it, or it does not map clips to logits.
    """

    def __init__(self, data: bytes) -> None:
        from onnx import ModelProto

        super().__init__()
        self.data = data
        self._open()
        self.input_shape, self.num_classes = _read_shapes(self._session)
        self.num_tensors = len(ModelProto.FromString(data).graph.initializer)

    def _open(self) -> None:
        """Open a session with as many threads as PyTorch has."""
        import onnxruntime

        self._num_threads = torch.get_num_threads()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._num_threads
        options.log_severity_level = FATAL
        try:
            self._session = onnxruntime.InferenceSession(
                self.data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no class in common
            reason = " ".join(str(error).split())[:MAX_REASON_CHARS]
            raise ValueError(f"ONNX Runtime refuses it: {reason}") from None

    def forward(self, x: Tensor) -> Tensor:
        """Map clips [N, C, T, V] to logits [N, classes], on the device of the clips."""
        if self._num_threads != torch.get_num_threads():
            self._open()
        clips = x.detach().float().cpu().contiguous().numpy()
        (logits,) = self._session.run([OUTPUT], {INPUT: clips})
        return torch.from_numpy(np.asarray(logits)).to(x.device)


def _read_shapes(session: Any) -> tuple[tuple[int, int, int], int]:
    """Return (C, T, V) and the number of classes.

    Raises:
        ValueError: the network has other inputs or outputs, or takes batches of one size only.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shapes = [list(one.shape) for one in (*inputs, *outputs)]
    names = [(one.name, one.type) for one in (*inputs, *outputs)]
    if names != [(INPUT, "tensor(float)"), (OUTPUT, "tensor(float)")]:
        raise ValueError(f"expected an input {INPUT!r} and an output {OUTPUT!r}, of float32")
    (num_clips, *clip), (_, *logits) = shapes
    if isinstance(num_clips, int) or (len(clip), len(logits)) != (3, 1):
        raise ValueError(f"its shapes are {shapes[0]} and {shapes[1]}")
    if not all(isinstance(size, int) and size > 0 for size in (*clip, *logits)):
        raise ValueError(f"its shapes are {shapes[0]} and {shapes[1]}")
    channels, frames, joints = clip
    return (channels, frames, joints), logits[0]
