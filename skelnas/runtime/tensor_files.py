"""Tensors and a JSON object in a safetensors file, under one checksum."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, uint8

from skelnas import json_text
from skelnas.runtime import files

MAX_TENSORS = 100_000
"""A name takes twenty times as much memory as it does in a file."""

MAX_REASON_CHARS = 200
"""Of what safetensors says is wrong, which may quote much of the file."""


def to_bytes(tensors: Mapping[str, Tensor], key: str, facts: Mapping[str, Any]) -> bytes:
    """Return the content of a file.

    Args:
        tensors: by name.
        key: of the metadata that holds the facts.
        facts: plain JSON.
    """
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    sealed = files.seal(facts, _checksum(contiguous))
    return safetensors.torch.save(contiguous, {key: json.dumps(sealed, sort_keys=True)})


def read(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `to_bytes` returned: the tensors and the facts.

    Raises:
        InputError: the file is a pipe or a device.
        ValueError: it cannot be read, has no such key, or is damaged.
    """
    try:
        files.check_is_regular(path)
        with utf8_path(path) as opened, safetensors.safe_open(opened, framework="pt") as file:
            metadata = file.metadata() or {}
            if key not in metadata:
                raise ValueError(f"its metadata has no {key!r} entry")
            facts = json_text.parse(metadata[key])
            if len(names := list(file.keys())) > MAX_TENSORS:
                raise ValueError(f"{len(names):,} tensors, expected at most {MAX_TENSORS:,}")
            tensors = {name: file.get_tensor(name) for name in names}
        # Without a checksum, the tensors need not be read.
        is_sealed = isinstance(facts, dict) and files.CHECKSUM in facts
        return tensors, files.unseal(facts, _checksum(tensors) if is_sealed else 0)
    except OSError as error:
        raise ValueError(error.strerror or error) from None
    except safetensors.SafetensorError as error:
        raise ValueError(" ".join(str(error).split())[:MAX_REASON_CHARS]) from None


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """Yield a path that safetensors opens: a link, where the path itself is not UTF-8.

    Raises:
        OSError: the link cannot be made.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with TemporaryDirectory(prefix="skelnas-") as folder:
            link = Path(folder, "link")
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """Return the CRC-32 of names, types, shapes and numbers."""
    total = 0
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.flatten().view(uint8).numpy().data, total)
    return total
