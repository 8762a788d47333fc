"""Arguments in the wrong order are recognised, and the right command is printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skelnas.errors import UsageError
from skelnas.runtime import console


def check_order(command: str, arguments: Mapping[str, Any], words: list[str]) -> None:
    """Check that no argument stands where another belongs.

    Args:
        command: its full name.
        arguments: their values by name, in the order in which the command takes them.
        words: the command line after the name.

    Raises:
        UsageError: two are swapped; the hint is the right command.
    """
    typed = {name: _typed(value, words) for name, value in arguments.items()}
    swapped = _find_swapped(typed)
    if swapped is None:
        return
    verb = command.removeprefix("skelnas ")
    right = console.shell(*verb.split(), *_exchange(words, *swapped))
    raise UsageError(
        f"arguments are swapped: {verb} takes {', then '.join(map(str.upper, arguments))}",
        hint=f"`{right}`",
    )


def _typed(value: Any, words: list[str]) -> list[Path]:
    """Return the paths of an argument, but for those from a file of settings."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, Path) and one in map(Path, words)]


def _find_swapped(typed: Mapping[str, list[Path]]) -> tuple[Path, Path] | None:
    """Return a path that is not what its argument should be, and the one that is."""
    for name, belongs in KINDS.items():
        misplaced = typed.get(name)
        if not misplaced or belongs(misplaced[0]):
            continue
        for other in typed.keys() - {name}:
            for path in typed[other]:
                if belongs(path) and not (other in KINDS and KINDS[other](path)):
                    return misplaced[0], path
    return None


def _exchange(words: list[str], *paths: Path) -> list[str]:
    """Return words with that of the later path before that of the earlier one."""
    earlier, later = sorted([*map(Path, words)].index(path) for path in paths)
    others = words[:later] + words[later + 1 :]
    return [*others[:earlier], words[later], *others[earlier:]]


def is_cache(path: Path) -> bool:
    """Return whether a path is that of a cache, by its name or its first bytes."""
    if path.suffix.lower() == ".h5":
        return not path.is_dir()
    if not path.is_file():
        return False
    import h5py

    return bool(h5py.is_hdf5(path))


def is_model(path: Path) -> bool:
    """Return whether a path is that of a model, by its name or what the folder holds."""
    return (
        path.suffix.lower() in (".safetensors", ".onnx") or (path / "model.safetensors").is_file()
    )


KINDS = {"cache": is_cache, "model": is_model, "out": is_cache}
"""What can be recognised, by the name of the argument; ``out`` is that of `skelnas prepare`."""
