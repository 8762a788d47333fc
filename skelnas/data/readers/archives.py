"""Read files inside a `.zip` as if it were a folder: ``clips.zip/S001/one.skeleton``.

Nothing is unpacked to the disk. A member has the path that safe unpacking would give it, so that
one named ``../../etc/passwd`` is looked up below the archive, too. Every process opens an archive
once and keeps it open.
"""

from __future__ import annotations

import io
import re
import struct
import unicodedata
import weakref
import zipfile
import zlib
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO

from skelnas.errors import InputError
from skelnas.runtime.files import check_is_regular

ENDING = ".zip"
MAX_RATIO = 200
"""Skeletons as text shrink to a third; a member compressed further than this is a zip bomb."""
HARMLESS_BYTES = 1 << 20
"""Members below this size may have any ratio: an empty clip compresses very well."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
"""What reading a damaged member raises."""


class Archive:
    """An open archive.

    Args:
        path: the file.
        data: its bytes, if they have been read already.

    Attributes:
        members: path to member, in the order of the archive, without folders; of two members with
            the same path, the first.
        paths: the path of every member, including duplicates.
        top: the one folder that holds all members; empty if there are several, or none.
    """

    def __init__(self, path: Path, data: bytes | None = None) -> None:
        self._path = path
        check_is_regular(path)
        try:
            raw = path.open("rb") if data is None else io.BytesIO(data)
            weakref.finalize(self, raw.close)
            self._file = zipfile.ZipFile(raw)
        except BROKEN as error:
            raise InputError(
                f"{path}: expected a zip archive: {_short(error)}",
                hint="it may be truncated: copy it again, or unpack it and name the folder",
            ) from None
        packed = sum(member.compress_size for member in self._file.infolist())
        if packed > (size := path.stat().st_size if data is None else len(data)):
            raise InputError(
                f"{path}: its files take {packed:,} bytes, more than the archive's {size:,}: they "
                "overlap, which looks like a zip bomb"
            )
        self.members: dict[str, zipfile.ZipInfo] = {}
        self.paths: list[str] = []
        for member in self._file.infolist():
            inner = _unpacked(member.filename)
            if inner and not member.is_dir() and not inner.startswith("__MACOSX/"):
                self.members.setdefault(inner, member)
                self.paths.append(inner)
        tops = {inner.rpartition("/")[0].partition("/")[0] for inner in self.members}
        self.top = tops.pop() if len(tops) == 1 else ""

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """The paths of the members that lie in a folder itself, by its path."""
        folders: dict[str, list[str]] = {}
        for inner in self.members:
            folders.setdefault(inner.rpartition("/")[0], []).append(inner)
        return folders

    def read(self, inner: str, limit: int, check_ratio: bool = True) -> bytes:
        """Read a member.

        Args:
            inner: its path.
            limit: maximum size in bytes.
            check_ratio: whether to refuse a member with an implausible compression ratio.

        Raises:
            InputError: it is missing, encrypted, damaged, larger than `limit` or a zip bomb.
        """
        where = f"{self._path / inner}"
        member = self.members.get(inner)
        if member is None:
            raise InputError(f"{where}: cannot be read: there is no such file in the archive")
        if problem := _find_problem(member, limit, check_ratio):
            raise InputError(f"{where}: {problem}")
        try:
            # `read` returns no more bytes than the archive declares, whatever was compressed.
            return self._file.read(member)
        except BROKEN as error:
            raise InputError(
                f"{where}: cannot be read from the archive: {_short(error)}",
                hint="the archive is damaged: copy it again",
            ) from None

    def open(self, inner: str) -> IO[bytes]:
        """Open a member that is too large to read at once; reading from it may raise `BROKEN`.

        The stream is closed when this object is collected.

        Raises:
            InputError: it is missing, encrypted, damaged or a zip bomb.
        """
        member = self.members.get(inner)
        problem = (
            _find_problem(member, member.file_size, check_ratio=True)
            if member
            else "there is no such file in the archive"
        )
        if member is None or problem:
            raise InputError(f"{self._path / inner}: cannot be read: {problem}")
        try:
            return self._file.open(member)
        except BROKEN as error:
            raise InputError(f"{self._path / inner}: cannot be read: {_short(error)}") from None


def is_archive(path: Path) -> bool:
    """Whether this is a file with the extension of a zip archive."""
    return path.suffix.lower() == ENDING and _is_there(path.is_file)


def find_archive(path: Path) -> tuple[Archive, str] | None:
    """Return the archive that a path is or leads into, and the rest of the path.

    Raises:
        InputError: the archive cannot be opened.
    """
    for outer in (path, *path.parents):
        if is_archive(outer):
            status = outer.stat()
            archive = _open(outer, status.st_mtime_ns, status.st_size)
            return archive, "" if outer == path else path.relative_to(outer).as_posix()
    return None


@lru_cache(maxsize=8)
def _open(path: Path, mtime_ns: int, size: int) -> Archive:
    return Archive(path)


def is_folder(path: Path) -> bool:
    """Whether this is a folder, an archive or a folder in an archive."""
    if _is_there(path.is_dir):
        return True
    found = find_archive(path)
    return found is not None and (
        found[1] in found[0].folders or any(_below(inner, found[1]) for inner in found[0].members)
    )


def is_file(path: Path) -> bool:
    """Whether this is a file, which may be inside an archive."""
    if _is_there(path.is_file):
        return True
    found = find_archive(path)
    return found is not None and found[1] in found[0].members


def find_spelling(folder: Path, file: str) -> str:
    r"""Return the path as it is spelled on the disk: with / for \, in another Unicode form."""
    if (file.isascii() and "\\" not in file) or is_file(folder / file):
        return file
    slashed = file.replace("\\", "/")
    forms = [unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    return next((form for form in (slashed, *forms) if is_file(folder / form)), file)


def find_time(path: Path) -> int:
    """Return when a file or folder was written, or its archive, in ns; 0 if there is neither."""
    found = next((outer for outer in (path, *path.parents) if _is_there(outer.exists)), None)
    return found.stat().st_mtime_ns if found else 0


def _is_there(check: Callable[[], bool]) -> bool:
    """Return what `Path.exists` and the like do; False if the name is too long for a file."""
    try:
        return check()
    except OSError:
        return False


def list_archive(root: Path, ending: str) -> list[Path] | None:
    """List the members below a path that end in `ending`, in any case.

    Returns:
        None if the path is not in an archive.
    """
    found = find_archive(root)
    if found is None:
        return None
    archive, folder = found
    start = len(folder) + 1 if folder else 0
    paths = (inner for inner in archive.paths if inner.lower().endswith(ending))
    return [root / inner[start:] for inner in paths if _below(inner, folder)]


def list_folder(folder: Path) -> list[Path]:
    """List what is in a folder itself; of one in an archive, the files. May raise OSError."""
    found = None if folder.is_dir() else find_archive(folder)
    if found is None:
        return list(folder.iterdir())
    return [folder / inner.rpartition("/")[2] for inner in found[0].folders.get(found[1], [])]


def enter(root: Path) -> Path:
    """Return the one folder that holds all members of an archive, else the path itself."""
    if not is_archive(root):
        return root
    found = find_archive(root)
    assert found is not None
    return root / found[0].top


def _short(error: Exception) -> str:
    """Cut an error to one line of sensible length: some quote the archive at length."""
    return _CONTROL.sub("?", str(error))[:200]


def _below(inner: str, folder: str) -> bool:
    return not folder or inner.startswith(folder + "/")


def _unpacked(name: str) -> str:
    """Return the path of a member after safe unpacking: never upwards, never from the root."""
    return "/".join(
        _CONTROL.sub("?", part) for part in name.split("/") if part not in ("", ".", "..")
    )


def _find_problem(member: zipfile.ZipInfo, limit: int, check_ratio: bool) -> str | None:
    """Return why a member cannot be read at once, if so."""
    if obstacle := _find_obstacle(member):
        return obstacle
    if member.file_size > limit:
        return f"{member.file_size:,} bytes when unpacked, expected at most {limit:,}"
    max_bytes = max(HARMLESS_BYTES, MAX_RATIO * member.compress_size)
    if check_ratio and member.file_size > max_bytes:
        return (
            f"{member.compress_size:,} bytes become {member.file_size:,} when unpacked, "
            f"expected at most {MAX_RATIO} times as many: it looks like a zip bomb"
        )
    return None


def _find_obstacle(member: zipfile.ZipInfo) -> str | None:
    """Return why a member cannot be read at all, if so."""
    if member.flag_bits & _ENCRYPTED:
        return "it is encrypted, expected an archive without a password"
    if member.compress_type not in _METHODS:
        return f"compression method {member.compress_type}, expected deflate: unpack the archive"
    return None
