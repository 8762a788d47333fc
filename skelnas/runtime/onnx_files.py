"""A network and a JSON object in an ONNX file, under one checksum.

The object is a metadata property, and the last part of the file: the checksum is of what is before
it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from skelnas import json_text
from skelnas.errors import SkelnasError
from skelnas.runtime import files

SUFFIX = ".onnx"

MAX_BYTES = (1 << 31) - 1
"""Of a protocol buffer."""


def check_packages(purpose: str, *names: str) -> None:
    """Check that the packages that work with ONNX are installed.

    Raises:
        SkelnasError: names the first that is missing.
    """
    try:
        for name in ("onnx", "onnxruntime", *names):
            import_module(name)
    except ImportError as error:
        raise SkelnasError(
            f"{purpose} needs {error.name}", hint="pip install 'skelnas[onnx]'"
        ) from None


def to_bytes(network: bytes, key: str, facts: Mapping[str, Any]) -> bytes:
    """Return the content of a file.

    Args:
        network: a serialised ``ModelProto``.
        key: of the metadata property that holds the facts.
        facts: plain JSON.
    """
    sealed = files.seal(facts, zlib.crc32(network))
    return network + _property(key, json.dumps(sealed, sort_keys=True))


def read(path: Path, key: str) -> tuple[bytes, dict[str, Any]]:
    """Read what `to_bytes` returned: the network and the facts.

    Raises:
        InputError: the file is a pipe or a device.
        SkelnasError: a package is missing.
        ValueError: it cannot be read, has no such property, or is damaged.
    """
    check_packages("reading ONNX")
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    files.check_is_regular(path)
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, expected at most {MAX_BYTES:,}")
        data = path.read_bytes()
        properties = {one.key: one.value for one in ModelProto.FromString(data).metadata_props}
    except OSError as error:
        raise ValueError(error.strerror or error) from None
    except DecodeError:
        raise ValueError("it is not ONNX") from None
    if key not in properties:
        raise ValueError(f"its metadata has no {key!r} entry")
    text = properties[key]
    network = data.removesuffix(_property(key, text))
    return network, files.unseal(json_text.parse(text), zlib.crc32(network))


def _property(key: str, text: str) -> bytes:
    """Return a ``ModelProto`` of a single property: protocol buffers in a row are merged."""
    from onnx import ModelProto, StringStringEntryProto

    data: bytes = ModelProto(
        metadata_props=[StringStringEntryProto(key=key, value=text)]
    ).SerializeToString()
    return data
