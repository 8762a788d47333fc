"""Several processes that do one piece of work: PyTorch's ranks, as `torchrun` starts them.

Every rank holds all weights and takes its share of every batch; what the ranks find is summed.
Without other ranks every function here returns at once, and what it is given.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from skelnas import errors
from skelnas.errors import SkelnasError, UsageError

T = TypeVar("T")


@dataclass
class _Group:
    """The ranks that have joined.

    Attributes:
        rank, size: which of them this process is, and how many there are.
        store: small messages, kept by `torchrun` or by the first rank.
        decisions: how many calls of `on_first` there have been.
    """

    rank: int
    size: int
    store: Store
    decisions: int = 0


_group: _Group | None = None
_joins = itertools.count()


def rank() -> int:
    """Return which rank this process is, from 0."""
    return _group.rank if _group else 0


def world_size() -> int:
    """Return how many ranks there are."""
    return _group.size if _group else 1


def local_rank() -> int:
    """Return which of the ranks of its machine this process is: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _group else 0


def is_first() -> bool:
    """Say whether this rank is the one that writes and speaks."""
    return rank() == 0


@contextmanager
def joined(timeout: float) -> Iterator[None]:
    """Join the other ranks for a while, if `torchrun` has started any.

    Tensors of a GPU travel by NCCL, those of a CPU by Gloo.

    Args:
        timeout: seconds that a rank waits for the others before it gives up.

    Raises:
        UsageError: WORLD_SIZE says that there are other ranks, but not where they are.
        SkelnasError: another rank has gone or does not answer.
    """
    global _group
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    with _talking():
        _group = _join(timedelta(seconds=timeout))
    yield
    leave()  # not after a failure: then the process ends, and `is_new` needs the store


def leave() -> None:
    """Leave the other ranks, in one's own time."""
    global _group
    if _group is not None:
        dist.destroy_process_group()
        _group = None


def _join(timeout: timedelta) -> _Group:
    try:
        store, rank, size = _meeting_place(timeout)
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {str(error).split(': ')[-1]}",
            hint="`torchrun --nproc-per-node 2 -m skelnas ...` starts two ranks; "
            "unset WORLD_SIZE for one process",
        ) from None
    store = PrefixStore(f"skelnas {next(_joins)}", store)  # apart from what was said before
    store.set_timeout(timeout)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    return _Group(rank, size, store)


@cache
def _meeting_place(timeout: timedelta) -> tuple[Store, int, int]:
    """Find the store that all ranks know; returns it, this rank, and how many there are."""
    place: tuple[Store, int, int] = next(rendezvous("env://", timeout=timeout))
    return place


def rank_slice(count: int) -> slice:
    """Return which of the `count` clips of a batch are this rank's: neighbours, equally many.

    Where they cannot be equally many, the first ranks have one more.

    Raises:
        UsageError: there are fewer clips than ranks.
    """
    if count < world_size():
        raise UsageError(
            f"{world_size()} ranks cannot share {count} clips",
            hint="start fewer ranks, or take a larger --batch-size",
        )
    each, more = divmod(count, world_size())
    start = rank() * each + min(rank(), more)
    return slice(start, start + each + (rank() < more))


def all_reduce(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Sum each tensor over the ranks; all travel together. The same bits on every rank.

    The sums can be differentiated, twice too: what all ranks make of them flows back to each.
    """
    if _group is None or not tensors:
        return list(tensors)
    return _unpacked(_Sum.apply(_packed(tensors)), tensors)  # type: ignore[no-untyped-call]


def all_gather(row: Tensor) -> Tensor:
    """Return [ranks, n], the row [n] of every rank. It can be differentiated, twice too."""
    rows = [row if number == rank() else torch.zeros_like(row) for number in range(world_size())]
    table = torch.stack(rows)
    return table if _group is None else _Sum.apply(table)  # type: ignore[no-untyped-call]


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Give every rank the values of the first."""
    if _group is None:
        return
    with torch.no_grad():
        values = _packed(tensors)
        with _talking():
            dist.broadcast(values, src=0)
        for tensor, value in zip(tensors, _unpacked(values, tensors), strict=True):
            tensor.copy_(value)


def agree(*wishes: bool) -> list[bool]:
    """Say of each wish whether any rank has it, so that all ranks do the same."""
    if _group is None:
        return list(wishes)
    return (_sum(torch.tensor(wishes, dtype=torch.int32)) > 0).tolist()


def check_same(tensors: Sequence[Tensor], where: str) -> None:
    """Check that all ranks hold the same numbers, bit for bit.

    Raises:
        SkelnasError: they do not; on all ranks alike.
    """
    if _group is None:
        return
    mine = torch.zeros(_group.size, dtype=torch.int64)
    mine[_group.rank] = _fingerprint(tensors)
    prints = _sum(mine)
    others = [number for number in range(_group.size) if prints[number] != prints[0]]
    if others:
        raise SkelnasError(
            f"the ranks have come apart {where}: rank {others[0]} holds other numbers than rank 0",
            hint="all ranks need the same cache, run folder, versions and kind of device",
        )


def on_first(work: Callable[[], T]) -> T | None:
    """Do something on the first rank, while the others wait; if it fails, it fails on all.

    Returns:
        What it has returned, on the first rank; None on the others.
    """
    if _group is None:
        return work()
    _group.decisions += 1
    key = f"decision {_group.decisions}"
    if is_first():
        try:
            outcome = work()
        except Exception as error:
            kind = type(error).__name__ if isinstance(error, SkelnasError) else "SkelnasError"
            hint = getattr(error, "hint", None)
            _group.store.set(key, json.dumps([kind, str(error), hint]))
            raise
        _group.store.set(key, "done")
        return outcome
    with _talking():
        said = _group.store.get(key).decode()
    if said != "done":
        kind, message, hint = json.loads(said)
        raise getattr(errors, kind)(message, hint=hint)
    return None


def is_new(message: str) -> bool:
    """Say whether no other rank has said this: what fails on all ranks is told once."""
    if _group is None:
        return True
    digest = hashlib.sha256(message.encode()).hexdigest()
    try:
        return _group.store.add(f"said {digest}", 1) == 1
    except RuntimeError:  # whoever kept the store has gone
        return True


class _Sum(torch.autograd.Function):
    """The sum over the ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return _sum(x.clone())

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        summed: Tensor = _Sum.apply(gradients[0].contiguous())  # type: ignore[no-untyped-call]
        return summed


def _sum(values: Tensor) -> Tensor:
    """Sum over the ranks, in place."""
    with _talking():
        dist.all_reduce(values)
    return values


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _unpacked(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut values into tensors with the shapes and memory layouts of others."""
    pieces = torch.split(values, [tensor.numel() for tensor in like])
    return [
        torch.empty_like(tensor).copy_(piece.view(tensor.shape))
        for tensor, piece in zip(like, pieces, strict=True)
    ]


def _fingerprint(tensors: Sequence[Tensor]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


@contextmanager
def _talking() -> Iterator[None]:
    """Turn what goes wrong between ranks into one line.

    Raises:
        SkelnasError: another rank has gone or does not answer.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # of Gloo, of NCCL, of the store
        late = re.search("timed out|timeout", str(error), re.IGNORECASE)
        raise SkelnasError(
            "another rank does not answer in time" if late else "another rank has gone",
            hint="the messages of the other ranks and of torchrun say why; a search or a training "
            "goes on from its last checkpoint with --resume",
        ) from error
