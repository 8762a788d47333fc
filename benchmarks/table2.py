"""Compare the cost of networks of 7 to 11 cells with the FLOPs in Table II of the paper.

    python benchmarks/table2.py --out benchmarks/results/table2.json

`MACs` are those of `skelnas evaluate`. `profiled` adds what the profiler thop of 2019 to 2022 also
counted in evaluation mode: two for each output of BatchNorm, one for each output of a 3 x 3 average
pool, and one for each input and output of a mean over all frames and joints. Only shapes are
computed, so it takes seconds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skelnas.genotype import BUILT_IN, Genotype
from skelnas.models.complexity import measure
from skelnas.models.layers import SqueezeExcite
from skelnas.models.network import Network
from skelnas.models.norm import BatchNorm

PAPER = {7: 8.09, 8: 9.09, 9: 10.2, 10: 11.1, 11: 12.1}
"""Cells to FLOPs in units of 1e9, as printed in Table II."""


def count(genotype: Genotype, layers: int, channels: int, shape: tuple[int, int, int]) -> Any:
    """Count one network: parameters, MACs, and what a profiler adds to the MACs."""
    with torch.device("meta"):
        network = Network(
            genotype, in_channels=shape[0], num_classes=60, channels=channels, num_layers=layers
        )
    complexity = measure(network, shape)
    extra = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal extra
        if isinstance(module, BatchNorm):
            extra += 2 * output.numel()
        elif isinstance(module, nn.AvgPool2d):
            extra += output.numel()
        elif isinstance(module, SqueezeExcite):
            extra += inputs[0].numel() + inputs[0].shape[1]
        elif module is network.cells[-1]:  # the head's mean reads it
            extra += output.numel() + output.shape[1]

    for module in network.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape, device="meta"))
    return {
        "parameters": complexity.parameters,
        "macs": complexity.macs,
        "profiled": complexity.macs + extra,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="224x224", help="frames x joints")
    parser.add_argument("--channels", type=int, default=36)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    frames, joints = map(int, arguments.size.split("x"))
    rows = [
        {
            "genotype": name,
            "cells": layers,
            "paper": paper,
            **count(genotype, layers, arguments.channels, (3, frames, joints)),
        }
        for name, genotype in BUILT_IN.items()
        for layers, paper in PAPER.items()
    ]
    print(f"{arguments.size}, {arguments.channels} channels, 60 classes; units of 1e9")
    for row in rows:
        print(
            "{genotype}  {cells:2} cells  {parameters:9,} parameters  paper {paper:5.2f}".format(
                **row
            ),
            f" MACs {row['macs'] / 1e9:6.3f}  profiled {row['profiled'] / 1e9:6.3f}",
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
