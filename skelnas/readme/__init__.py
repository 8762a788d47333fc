"""The ``README.md`` of a model folder: what the model is, how good, and what it cannot do.

Written when a training ends, in the form of a model card of the Hugging Face Hub: a head in YAML,
then Markdown. Results are added by ``skelnas evaluate --card``. They are kept in one line of the
head, ``model-index: [...]``, which is JSON (and so YAML), and shown as a table of the text; the
rest of the text is left as it is, so that it can be edited.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from skelnas import runs
from skelnas.console import note
from skelnas.errors import SkelnasError, UsageError
from skelnas.genotype import from_dict
from skelnas.model_folder import Model, load_model
from skelnas.plot import draw_cells
from skelnas.readme.results import add, has_place
from skelnas.readme.text import PICTURE, make_text
from skelnas.scores import Scores

README = "README.md"
_OF = re.compile(r"<!-- skelnas card of ([0-9a-f]{8}) -->")


@dataclass(frozen=True)
class _Folder:
    """A model folder as its card sees it.

    Attributes:
        path: the folder.
        model: what is in it.
        code: CRC-32 of its file, by which a card knows whose it is.
        text: its card, or "" if there is none yet.
    """

    path: Path
    model: Model
    code: str
    text: str

    @classmethod
    def read(cls, path: Path) -> _Folder:
        model = load_model(path)
        readme = path / README
        text = readme.read_text(encoding="utf-8") if readme.exists() else ""
        return cls(path, model, f"{zlib.crc32((path / runs.MODEL).read_bytes()):08x}", text)

    @property
    def is_foreign(self) -> bool:
        """Whether there is a README that skelnas did not write."""
        return bool(self.text) and not _OF.search(self.text)

    @property
    def is_current(self) -> bool:
        """Whether there is a card, and of these very weights."""
        found = _OF.search(self.text)
        return found is not None and found[1] == self.code


def write_card(path: Path) -> None:
    """Write the card of a model folder, unless it has one of these weights.

    A README that skelnas did not write stays, and a note says so. The picture of the cells needs
    matplotlib; without it there is none.
    """
    folder = _Folder.read(path)
    if folder.is_current:
        return
    if folder.is_foreign:
        note(f"{path / README}: is not of skelnas, and stays as it is")
        return
    text = make_text(path, folder.model, has_picture=_draw(folder))
    runs.atomic_write(path / README, f"{text}\n<!-- skelnas card of {folder.code} -->\n")


def check_card(path: Path) -> None:
    """Check that results can be added to the card of a folder, before they are computed.

    Raises:
        InputError: there is no model.
        UsageError: it is no folder, or its README has no place for results.
    """
    if not path.is_dir():
        raise UsageError(
            f"{path}: has no card, which is a file of a model folder",
            hint="give the folder, or leave --card out",
        )
    folder = _Folder.read(path)
    if folder.is_foreign:
        raise UsageError(
            f"{path / README}: is not of skelnas, so nothing is written to it",
            hint=f"move it away, and --card writes a {README} of its own",
        )
    if folder.is_current and not has_place(folder.text):
        raise UsageError(
            f"{path / README}: has no place for results any more",
            hint="see `Model folder` in docs/formats.md, or remove it: --card writes a new one",
        )


def add_results(path: Path, scores: Scores) -> None:
    """Put the results of an evaluation into the card of a folder, which is written if need be.

    Results on the same part of the same protocol are replaced.

    Raises:
        InputError, UsageError: as `check_card`.
    """
    check_card(path)
    write_card(path)
    folder = _Folder.read(path)
    text = add(folder.text, scores, folder.model.card.source)
    runs.atomic_write(path / README, text)


def _draw(folder: _Folder) -> bool:
    """Draw the cells beside the card, if there are cells and what draws them is installed."""
    genotype = folder.model.card.genotype
    if genotype is None:
        return False
    try:
        draw_cells(from_dict(genotype, "the model's genotype"), folder.path / PICTURE)
    except SkelnasError as error:
        note(f"{README} has no picture of the cells: {error}")
        return False
    return True
