"""Compile the Triton kernels, and estimate the time that they cannot beat; needs no GPU.

    python benchmarks/kernel_report.py --out benchmarks/results/kernels.json
    python benchmarks/kernel_report.py --cell

All kernels that a pass through the supernet launches are compiled for a GPU, which need not be
present. Registers, spills and shared memory come from the compiler. Bytes are counted as if each
tensor that a launch reads or writes crossed the memory bus once (halos and shared reads stay in the
cache); FLOPs are those of the convolutions, forward and backward. The estimate for a launch is the
longer of the two times at the given rates, and at least `--overhead`. Nothing is timed. `--cell`
counts the launches and bytes of one cell with every engine, and what a forward pass of the
supernet keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from about import about
from ahead_of_time import Launch, compile_for, launches_of, recording
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skelnas.engine import ENGINES
from skelnas.engine.triton import uncovered
from skelnas.engine.triton.blocks import PRODUCTS
from skelnas.engine.triton.check import make_cell
from skelnas.engine.triton.layout import Op
from skelnas.engine.triton.mixed_cell import evaluate
from skelnas.models.stack import cell_specs
from skelnas.nas.supernet import MixedCell, Supernet
from skelnas.primitives import SPACES

PASSES = {"forward": 5, "backward": 2, "backward with weights": 3}
"""Passes of each kind in a second-order step."""


COVERED = [space for space, primitives in SPACES.items() if not uncovered(primitives, 16)]
"""The search spaces whose operations all have kernels."""


def parse(capability: str) -> tuple[int, int]:
    """Return a capability as numbers."""
    major, minor = map(int, capability.split("."))
    return major, minor


def decode(code: int, count: int) -> list[Op]:
    """Unpack the operations of `skelnas.engine.triton.layout.pack_ops`."""
    words = [code >> 64 * index for index in range(count)]
    return [Op(w & 15, w >> 4 & 15, w >> 8 & 15, w >> 12 & 15) for w in words]


def cost(launch: Launch) -> tuple[int, int]:
    """Return the bytes that a launch must move, and its floating-point operations."""
    args = launch.arguments
    size = next(value for value in args.values() if isinstance(value, Tensor)).element_size()
    c = args["C"]
    ops = decode(args.get("OPS", 0), args.get("NUM_OPS", 0))
    k = args.get("K", 0)
    n = args.get("N", 0)
    image = n * args.get("TO", 0) * args.get("VO", 0) * c
    node = n * args.get("T", 0) * args.get("V", 0) * c
    separable = [op for op in ops if op.stages]
    second = [op for op in ops if op.stages == 2]
    pools, scaled = args.get("POOLS", False), args.get("SCALED", False)

    def work(some: list[Op], pointwise: bool = True, depthwise: bool = True) -> int:
        """Return the FLOPs of one stage of some operations, at all pixels of all edges."""
        macs_per_pixel = sum(
            op.size**2 * (depthwise if op.stages else c) + c * (pointwise and op.stages > 0)
            for op in some
        )
        return 2 * k * image * macs_per_pixel

    match launch.name:
        case "convolve_and_pool" if args["STAGE"] == 1:
            return size * (node + image * (k * len(ops) + 2 * pools)), work(ops)
        case "pool":
            return size * (node + 2 * image + image // 4), 0
        case "convolve_and_pool":
            return size * 2 * k * image * len(second), work(second)
        case "combine":
            of_inputs = decode(args["OPS0"], args["NUM_OPS0"])
            edges = (len(of_inputs), args["SCALED0"]), (len(ops), scaled)
            num_nodes = args["target"]
            terms = [2 * edges[0][0] + num_nodes * edges[1][0], 2 * (2 + num_nodes)]
            nodes = 2 * edges[0][1] + num_nodes * edges[1][1]
            return size * image * (sum(terms) + nodes + 1), 0
        case "sum_products":
            return size * image * (k * (1 + len(ops)) + 2 * pools + scaled), 0
        case "pointwise_backward":
            some = separable if args["STAGE"] == 1 else second
            moved = image * (3 * k * len(some) + pools * (k + 4))
            return size * moved, work(some, depthwise=False)
        case "depthwise_backward":
            return size * 3 * k * len(second) * image, work(second, pointwise=False)
        case "node_gradient":
            moved = image * (k * (len(ops) + 1) + pools * 2) + image // 4 * pools + node * 2
            return size * (moved + node * args["HAS_BASE"]), work(ops, pointwise=False)
        case "matrix_gradients":
            stages = sum(max(op.stages, 1) for op in ops)
            moved = image * k * (2 * stages + len(second)) + node
            written = launch.grid[0] * launch.grid[1] * k * c * c
            return size * (moved + written), work(ops) + work(second)
        case "depthwise_gradients":
            moved = image * k * (len(separable) + 2 * len(second)) + node
            taps = sum(op.stages * op.size**2 for op in ops)
            return size * (moved + launch.grid[0] * k * c * taps), 2 * k * image * taps
        case _:  # statistics and gates: sums of tiles
            return 0, 0


def passes(args: argparse.Namespace, capability: tuple[int, int]) -> dict[str, list[Launch]]:
    """List the launches of all cells of the supernet, for each kind of pass."""
    found: dict[str, list[Launch]] = defaultdict(list)
    t, v = args.frames, args.joints
    for number, spec in enumerate(cell_specs(args.channels, args.layers, 4, 4)):
        if args.width and spec.channels != args.width:
            t, v = (-(-t // 2), -(-v // 2)) if spec.reduction else (t, v)
            continue
        shape = (args.batch, spec.channels, t, v)
        for name, grad_weights in (("backward", False), ("backward with weights", True)):
            wanted = grad_weights or number > 1, grad_weights or number > 0  # alphas come first
            forward, backward = launches_of(
                SPACES[args.space], shape, spec.reduction, capability,
                grad_weights=grad_weights, grad_inputs=wanted, products=args.products,
            )  # fmt: skip
            found[name] += backward
        found["forward"] += forward
        if spec.reduction:
            t, v = -(-t // 2), -(-v // 2)
    return found


class Dispatched(TorchDispatchMode):
    """Counts what PyTorch dispatches, except views, and the bytes of its inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        view = any(each.alias_info and not each.alias_info.is_write for each in returns)
        if not view and func not in NO_LAUNCH:
            tensors = [
                each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)
            ]
            self.launches += 1
            self.bytes += sum({id(each): each.nbytes for each in tensors}.values())
        return out


NO_LAUNCH = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.new_empty.default,
    torch.ops.aten.detach.default,
}


@contextmanager
def saving() -> Iterator[list[Tensor]]:
    """Collect the tensors that are saved for a backward pass."""
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def saved_bytes(saved: Iterable[Tensor], leaves: Iterable[Tensor]) -> int:
    """Return the bytes of the storages of saved tensors, without those of leaves."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in saved}
    known = {leaf.untyped_storage().data_ptr() for leaf in leaves}
    return sum(each.nbytes() for address, each in storages.items() if address not in known)


def count_saved(args: argparse.Namespace) -> dict[str, int]:
    """Count the bytes that a forward pass of the supernet keeps for the backward pass."""
    found = {}
    for engine in ENGINES:
        torch.manual_seed(0)
        supernet = Supernet(
            in_channels=3,
            num_classes=60,
            primitives=SPACES[args.space],
            channels=args.channels,
            joints=args.joints,
            engine=engine,
        )
        for cell in supernet.modules():
            if isinstance(cell, MixedCell):
                cell.engine = evaluate if engine == "triton" else ENGINES[engine]
        x = torch.randn(args.batch, 3, args.frames, args.joints)
        with recording((9, 0)), saving() as saved:
            out = supernet(x)  # whose graph holds what is saved
        found[engine] = saved_bytes(saved, [*supernet.parameters(), x])
        del out, saved
    return found


def count_cell(args: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Count launches and bytes of the first normal cell, forward and backward, for each engine.

    A dispatched operation counts as one launch, although some take several on CUDA. `saved` is what
    the forward pass keeps for the backward pass, without inputs and weights.
    """
    shape = (args.batch, args.channels, args.frames, args.joints)
    found = {}
    for engine in ENGINES:
        cell = make_cell(SPACES[args.space], shape, False, 4, torch.device("cpu"))
        run = evaluate if engine == "triton" else ENGINES[engine]
        for _ in range(2):  # the first time, tables are made
            with recording((9, 0)) as launched, Dispatched() as counter:
                with saving() as saved:
                    out = run(cell.inputs, cell.op_weights, cell.primitives, cell.weights, False)
                torch.autograd.grad(out, cell.leaves, torch.empty_like(out), allow_unused=True)
        found[engine] = {
            "launches": counter.launches + len(launched),
            "bytes": counter.bytes + sum(cost(launch)[0] for launch in launched),
            "saved": saved_bytes(saved, cell.leaves),
        }
    return found


def report(args: argparse.Namespace, capability: tuple[int, int]) -> dict[str, Any]:
    """Compile and count the kernels for one kind of GPU."""
    found = passes(args, capability)
    kernels: dict[tuple[str, int], dict[str, Any]] = {}
    compiled = {}
    seconds = Counter[str]()
    for name, launched in found.items():
        for launch in launched:
            if launch.variant not in compiled:
                compiled[launch.variant] = compile_for(launch, capability)
            usage = compiled[launch.variant]
            moved, flops = cost(launch)
            time = max(moved / args.bandwidth, flops / args.flops, args.overhead)
            seconds[name] += time
            row = kernels.setdefault(
                (launch.name, launch.arguments["C"]),
                {"kernel": launch.name, "channels": launch.arguments["C"], "registers": 0,
                 "spilled": 0, "shared": 0, "launches": 0, "bytes": 0, "flops": 0, "seconds": 0.0},
            )  # fmt: skip
            row["registers"] = max(row["registers"], usage.registers)
            row["spilled"] = max(row["spilled"], usage.spilled)
            row["shared"] = max(row["shared"], usage.shared)
            row["launches"] += PASSES[name]
            row["bytes"] += PASSES[name] * moved
            row["flops"] += PASSES[name] * flops
            row["seconds"] += PASSES[name] * time
    return {
        "capability": "{}.{}".format(*capability),
        "variants": len(compiled),
        "launches": {name: len(launched) for name, launched in found.items()},
        "seconds": dict(seconds),
        "step": {
            "launches": sum(PASSES[name] * len(launched) for name, launched in found.items()),
            "bytes": sum(row["bytes"] for row in kernels.values()),
            "flops": sum(row["flops"] for row in kernels.values()),
            "seconds": sum(row["seconds"] for row in kernels.values()),
        },
        "kernels": list(kernels.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capability", nargs="+", default=["8.0", "8.6", "8.9", "9.0"])
    parser.add_argument("--space", default="sar", choices=COVERED)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--frames", type=int, default=112)
    parser.add_argument("--joints", type=int, default=50)
    parser.add_argument("--width", type=int, help="only cells with this number of channels")
    parser.add_argument("--bandwidth", type=float, default=3.35e12, help="bytes per second (H100)")
    parser.add_argument("--flops", type=float, default=60e12, help="float32 FLOPs per second")
    parser.add_argument("--overhead", type=float, default=2e-6, help="least seconds of a launch")
    parser.add_argument("--products", choices=PRODUCTS, help="instead of those of the engine")
    parser.add_argument("--cell", action="store_true", help="count for one cell with every engine")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(count_cell(args)))
        print(json.dumps({"saved by the supernet": count_saved(args)}))
        return
    reports = []
    for name in args.capability:
        reports.append(report(args, parse(name)))
        print(json.dumps(reports[-1]), flush=True)
    if args.out:
        options = {name: value for name, value in vars(args).items() if name != "out"}
        everything = {**about("cpu"), "options": options, "reports": reports}
        args.out.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
