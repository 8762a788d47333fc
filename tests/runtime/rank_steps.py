"""The work of each of two ranks, compared with one process in test_distributed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from interrupting import stop_after
from safetensors.torch import save_file
from torch import Tensor
from torch.func import functional_call

from skelnas import cli
from skelnas.config import EvaluateSettings, SearchSettings, TrainSettings
from skelnas.engine.norm import over_ranks
from skelnas.errors import Interrupted, SkelnasError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import BUILT_IN, random_genotype
from skelnas.models.baselines import BASELINES, Shape, find_baseline
from skelnas.models.network import Network
from skelnas.nas import architect
from skelnas.nas.flat_weights import FlatSGD, FlatWeights, gradients
from skelnas.nas.search import search
from skelnas.nas.supernet import Supernet
from skelnas.primitives import SPACES
from skelnas.runtime import distributed
from skelnas.training.loop import descend
from skelnas.training.train import train

CPU: Any = {"device": "cpu", "threads": 1}
CELLS: Any = {"layers": 1, "nodes": 1, "engine": "reference"}
SEARCH = SearchSettings(frames=6, channels=2, epochs=4, batch_size=7, **CELLS, **CPU)
DECIDING = SearchSettings.model_validate(
    {**SEARCH.model_dump(), "alpha_update": "exponentiated", "alpha_lr": 1.0}
    | {"alpha_weight_decay": 0, "weights_first": 0.5, "epochs": 2}
    | {"max_params": 200_000, "steer": True}
)
AUGMENT: Any = {"rotate": 20, "crop": 0.5, "jitter": 0.01, "drop_path": 0.4}
LEVERS: Any = {"warmup": 0.25, "nesterov": True, "label_smoothing": 0.1, "ema": 0.9}
SMALL: Any = {"frames": 6, "layers": 3, "channels": 2, "epochs": 2, "batch_size": 9}
TRAIN = TrainSettings(**SMALL, **AUGMENT, **LEVERS, **CPU)
EVALUATE = EvaluateSettings(batch_size=5, **CPU)
"""The test part has 12 clips: three batches for two ranks."""

CLIPS = 5
"""Size of a batch: odd, so that one of two ranks has more."""

HALVES = (slice(0, 3), slice(3, 5))
"""The slices of two ranks."""

OWN_SLICE = (None,)
"""The slice of this rank."""

Slices = Sequence[slice | None]
Tensors = dict[str, Tensor]


def batch(seed: int, rows: slice | None = None) -> tuple[Tensor, Tensor, float]:
    """Return clips and labels of a slice of a batch, and its fraction of the batch."""
    torch.manual_seed(seed)
    x, labels = torch.randn(CLIPS, 3, 7, 5, dtype=torch.float64), torch.randint(4, (CLIPS,))
    x = 3 + x * torch.arange(1, CLIPS + 1)[:, None, None, None]  # all clips differ
    rows = distributed.rank_slice(CLIPS) if rows is None else rows
    return x[rows], labels[rows], len(labels[rows]) / CLIPS


def small_supernet() -> Supernet:
    torch.manual_seed(0)
    shape: Any = {"channels": 2, "num_layers": 3, "num_nodes": 1}
    net = Supernet(in_channels=3, num_classes=4, primitives=SPACES["sar"], **shape).double()
    for alpha in net.alphas.values():
        torch.nn.init.normal_(alpha, std=0.5)
    return net


def search_step(slices: Slices = OWN_SLICE, exact: bool = False) -> Tensors:
    """Take one second-order search step; losses are summed over slices, by default the rank's."""
    net = small_supernet()
    names, tensors = zip(*net.named_weights(), strict=True)
    weights = FlatWeights(tensors)
    sgd = FlatSGD(weights, names, momentum=0.9, weight_decay=3e-4, clip=5.0)
    sgd.velocity.fill_(0.1)

    def loss(seed: int, moved: Sequence[Tensor] = tensors) -> Tensor:
        named = dict(zip(names, moved, strict=True))
        parts = []
        for rows in slices:
            x, labels, part = batch(seed, rows)
            parts.append(F.cross_entropy(functional_call(net, named, x), labels) * part)
        return torch.stack(parts).sum()

    method = architect.second_order_exact if exact else architect.second_order
    step = architect.VirtualStep(0.1, sgd.direction)
    alphas = list(net.alphas.values())
    gradient = method(partial(loss, 1), partial(loss, 2), weights, alphas, step)
    sgd.step(*gradients(loss(1), [weights]), 0.1)
    (seen,) = distributed.all_reduce([gradient.validation_loss])
    found = dict(zip(net.alphas, gradient.alphas, strict=True))
    return {**found, "loss": seen, "w": weights.values}


def training_steps() -> Tensors:
    """Take two steps with drop-path; return weights and running statistics."""
    torch.manual_seed(0)
    shape: Any = {"channels": 2, "num_layers": 3}
    network = Network(random_genotype(0), in_channels=3, num_classes=4, **shape).double()
    return two_steps(network, partial(network.draw_drop_paths, 0.3))


def baseline_steps(name: str) -> Tensors:
    """Take two steps with dropout; return the classifier and running statistics."""
    torch.manual_seed(0)
    bones = ((1, 0), (2, 1), (3, 1), (4, 3))
    network = find_baseline(name)(Shape(3, 5, 1, 4, bones)).double()
    state = two_steps(network, network.draw_dropout)
    return {key: value for key, value in state.items() if "running" in key or "classifier" in key}


def two_steps(
    network: torch.nn.Module, drop: Callable[[int, torch.Generator, slice], None]
) -> Tensors:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(2):
        drop(CLIPS, torch.Generator().manual_seed(step), distributed.rank_slice(CLIPS))
        x, labels, part = batch(step)
        descend(optimizer, F.cross_entropy(network(x), labels) * part, 0.1, 5.0)
    return network.state_dict()


def all_steps() -> Tensors:
    found = {
        "search": search_step(),
        "exact": search_step(exact=True),
        "training": training_steps(),
        **{name: baseline_steps(name) for name in BASELINES},
    }
    return {f"{case} {name}": value for case, it in found.items() for name, value in it.items()}


def talk() -> Tensors:
    """Return the results of each function of `distributed`, as numbers."""
    rank = distributed.rank()
    shared = torch.full((2, 2), float(rank))
    distributed.broadcast([shared])
    distributed.check_same([torch.ones(3), torch.tensor(2)], "here")
    message = ""
    try:
        distributed.check_same([torch.ones(3), torch.tensor(rank)], "in epoch 3")
    except SkelnasError as error:
        message = str(error)
    assert distributed.is_unreported(f"rank {rank} alone")
    return {
        "flags": torch.tensor(distributed.any_rank(rank == 1, False)),
        "rows": distributed.all_gather(torch.tensor([rank + 1.0, 7.0])),
        "shared": shared,
        "disagreement": torch.tensor(list(message.encode())),
        "reports": distributed.all_reduce(
            [torch.tensor(int(distributed.is_unreported("by both")))]
        )[0],
    }


def numbers(folder: Path) -> None:
    """Write the results of this rank."""
    with distributed.joined(60):
        with over_ranks(True):
            synced = all_steps()
        found = {"sync": synced, "rank": search_step(), "talk": talk()}
        for name, tensors in found.items():
            whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
            save_file(whole, folder / f"{name}{distributed.rank()}.safetensors")


def verbs(cache: Path, folder: Path) -> None:
    """Search, train and evaluate in `folder`; print the evaluation."""
    search(cache, folder / "run", SEARCH)
    search(cache, folder / "deciding", DECIDING)
    stop_and_resume(cache, folder / "stopped")
    with pytest.raises(SkelnasError, match="disagree at the start: rank 1 holds other"):
        search(cache, folder / "apart", SEARCH.model_copy(update={"seed": int(os.environ["RANK"])}))
    distributed.leave()
    train(cache, BUILT_IN["ntu_cs112se30"], folder / "model", TRAIN)
    print(json.dumps(evaluate(cache, folder / "model", EVALUATE).to_dict()))


def stop_and_resume(cache: Path, folder: Path) -> None:
    """Stop the second rank after three steps, which must stop both."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3 if os.environ["RANK"] == "1" else 10**6)
        with pytest.raises(Interrupted, match="stopped in epoch 2 after step 1"):
            search(cache, folder, SEARCH)
    distributed.leave()  # a failed run does not leave the group, because its process usually ends
    search(cache, folder, SEARCH, resume=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    numbers(Path(sys.argv[2]))
    verbs(Path(sys.argv[1]), Path(sys.argv[2]))
    # Last, as a command: a search in a folder that is not empty. It ends with 2.
    sys.argv = ["skelnas", "search", sys.argv[1], "--out", f"{sys.argv[2]}/run"]
    cli.main()
