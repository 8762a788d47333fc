"""Data parallelism over PyTorch's ranks, as `torchrun` starts them.

Every rank holds all weights and takes its slice of every batch; gradients and metrics are summed.
In a single process every function here returns at once, with its input as the result.
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
        store: passes small messages; hosted by `torchrun` or by the first rank.
        num_calls: of `run_on_first` so far; they number the messages in the store.
    """

    rank: int
    size: int
    store: Store
    num_calls: int = 0


_group: _Group | None = None
_joins = itertools.count()


def rank() -> int:
    """Return the rank of this process, from 0."""
    return _group.rank if _group else 0


def world_size() -> int:
    """Return the number of ranks."""
    return _group.size if _group else 1


def local_rank() -> int:
    """Return the rank within this machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _group else 0


def is_first() -> bool:
    """Return whether this is the rank that writes files and messages."""
    return rank() == 0


@contextmanager
def joined(timeout: float) -> Iterator[None]:
    """Join the other ranks inside the context, if `torchrun` has started any.

    GPU tensors travel by NCCL, CPU tensors by Gloo.

    Args:
        timeout: seconds that a rank waits for the others before it gives up.

    Raises:
        UsageError: WORLD_SIZE announces other ranks, but their address is missing.
        SkelnasError: another rank is gone or does not answer.
    """
    global _group
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    with _explaining_failures():
        _group = _join(timedelta(seconds=timeout))
    yield
    leave()  # not after a failure: the process ends then, and `is_unreported` needs the store


def leave() -> None:
    """Leave the other ranks, without waiting for them."""
    global _group
    if _group is not None:
        dist.destroy_process_group()
        _group = None


def _join(timeout: timedelta) -> _Group:
    try:
        store, rank, size = _rendezvous(timeout)
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {str(error).split(': ')[-1]}",
            hint="`torchrun --nproc-per-node 2 -m skelnas ...` starts two ranks; "
            "unset WORLD_SIZE for one process",
        ) from None
    store = PrefixStore(f"skelnas {next(_joins)}", store)  # apart from earlier messages
    store.set_timeout(timeout)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    return _Group(rank, size, store)


@cache
def _rendezvous(timeout: timedelta) -> tuple[Store, int, int]:
    """Return the store that all ranks share, this rank, and the number of ranks."""
    found: tuple[Store, int, int] = next(rendezvous("env://", timeout=timeout))
    return found


def rank_slice(count: int) -> slice:
    """Return this rank's slice of a batch of `count` clips.

    The slices are as equal as possible; the first ranks may have one clip more.

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
    """Sum each tensor over the ranks, in one message; every rank gets the same bits.

    Differentiable, also twice: each rank receives the gradients of all ranks.
    """
    if _group is None or not tensors:
        return list(tensors)
    return _unpack(_Sum.apply(_pack(tensors)), tensors)  # type: ignore[no-untyped-call]


def all_gather(row: Tensor) -> Tensor:
    """Return [ranks, n], the row [n] of every rank. Differentiable, also twice."""
    rows = [row if number == rank() else torch.zeros_like(row) for number in range(world_size())]
    table = torch.stack(rows)
    return table if _group is None else _Sum.apply(table)  # type: ignore[no-untyped-call]


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Copy the values of the first rank to all others."""
    if _group is None:
        return
    with torch.no_grad():
        values = _pack(tensors)
        with _explaining_failures():
            dist.broadcast(values, src=0)
        for tensor, value in zip(tensors, _unpack(values, tensors), strict=True):
            tensor.copy_(value)


def any_rank(*flags: bool) -> list[bool]:
    """Return for each flag whether any rank has set it, so that all ranks do the same."""
    if _group is None:
        return list(flags)
    return (_sum(torch.tensor(flags, dtype=torch.int32)) > 0).tolist()


def check_same(tensors: Sequence[Tensor], where: str) -> None:
    """Check that all ranks hold the same numbers, bit for bit.

    Raises:
        SkelnasError: they do not; raised on all ranks.
    """
    if _group is None:
        return
    mine = torch.zeros(_group.size, dtype=torch.int64)
    mine[_group.rank] = _fingerprint(tensors)
    fingerprints = _sum(mine)
    differing = [rank for rank in range(_group.size) if fingerprints[rank] != fingerprints[0]]
    if differing:
        raise SkelnasError(
            f"the ranks disagree {where}: rank {differing[0]} holds other numbers than rank 0",
            hint="all ranks need the same cache, run folder, versions and kind of device",
        )


def run_on_first(work: Callable[[], T]) -> T | None:
    """Call a function on the first rank while the others wait; if it fails, all ranks fail.

    Returns:
        On the first rank, what the function returned; None on the others.
    """
    if _group is None:
        return work()
    _group.num_calls += 1
    key = f"call {_group.num_calls}"
    if is_first():
        try:
            outcome = work()
        except BaseException as error:  # the others must not wait, not even for Ctrl-C here
            _group.store.set(key, json.dumps(_describe(error)))
            raise
        _group.store.set(key, "done")
        return outcome
    with _explaining_failures():
        answer = _group.store.get(key).decode()
    if answer != "done":
        kind, message, hint = json.loads(answer)
        raise getattr(errors, kind)(message, hint=hint)
    return None


def _describe(error: BaseException) -> tuple[str, str, str | None]:
    """Return the kind, the message and the hint with which the other ranks fail, too."""
    if isinstance(error, SkelnasError):
        return type(error).__name__, str(error), error.hint
    if isinstance(error, Exception):
        return "SkelnasError", str(error), None
    return "Interrupted", "the first rank was interrupted", None


def is_unreported(message: str) -> bool:
    """Return whether no other rank has reported this, so that a common failure appears once."""
    if _group is None:
        return True
    digest = hashlib.sha256(message.encode()).hexdigest()
    try:
        return _group.store.add(f"reported {digest}", 1) == 1
    except RuntimeError:  # the process that hosts the store is gone
        return True


class _Sum(torch.autograd.Function):
    """Sum over the ranks; the gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return _sum(x.clone())

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        summed: Tensor = _Sum.apply(grads[0].contiguous())  # type: ignore[no-untyped-call]
        return summed


def _sum(values: Tensor) -> Tensor:
    """Sum over the ranks, in place."""
    with _explaining_failures():
        dist.all_reduce(values)
    return values


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _unpack(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Split values into tensors with the shapes and memory formats of others."""
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
def _explaining_failures() -> Iterator[None]:
    """Turn a communication failure into a one-line error.

    Raises:
        SkelnasError: another rank is gone or does not answer.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # from Gloo, NCCL or the store
        is_late = re.search("timed out|timeout", str(error), re.IGNORECASE)
        raise SkelnasError(
            "another rank does not answer in time" if is_late else "another rank is gone",
            hint="the messages of the other ranks and of torchrun say why; `search` and `train` "
            "continue from their last checkpoint with --resume",
        ) from error
