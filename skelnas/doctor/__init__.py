"""`skelnas doctor`: what is installed and usable here, whether it computes right, how fast it is.

Everything that needs torch is imported when its turn comes, so that a broken installation is a
failed check and no crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skelnas.config import SearchSettings
from skelnas.doctor.packages import Package, find_extras, find_required, find_versions
from skelnas.errors import SkelnasError, is_out_of_memory

if TYPE_CHECKING:
    from skelnas.doctor.machine import Machine
    from skelnas.doctor.pace import Pace


@dataclass(frozen=True)
class Work:
    """The search whose time is estimated, as far as its settings do not say it.

    Attributes:
        cache: what it would search on, or None for the three numbers below.
        joints: V, of all persons side by side.
        classes: that are told apart.
        clips: in the half that trains w.
    """

    cache: Path | None = None
    joints: int = 50
    classes: int = 60
    clips: int = 20_046


@dataclass(frozen=True)
class Check:
    """Something that has to be so for a search to work here.

    Attributes:
        name: what was checked.
        passed: whether it is so.
        detail: what was found.
        hint: what to do where it is not.
    """

    name: str
    passed: bool
    detail: str
    hint: str | None = None


@dataclass
class Diagnosis:
    """What `diagnose` finds; what could not be found out is None, and a check says why.

    Attributes:
        versions: of skelnas, Python and the packages that results depend on.
        extras: the packages of each extra, and which of them are there.
        machine: processor, memory, threads and devices.
        engine: which engine a search with these settings would use, and why.
        checks: in the order in which they were made.
        pace: how long that search would take.
    """

    versions: dict[str, str]
    extras: dict[str, list[Package]]
    machine: Machine | None = None
    engine: dict[str, str] | None = None
    checks: list[Check] = field(default_factory=list)
    pace: Pace | None = None

    @property
    def is_sound(self) -> bool:
        """Whether every check has passed."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain containers, for JSON."""
        return {"sound": self.is_sound, **asdict(self)}

    @contextmanager
    def check(self, name: str) -> Iterator[Callable[[str], None]]:
        """Make a check of a block of work: it passes with what the block says, or fails."""
        said: list[str] = []
        try:
            yield said.append
        except SkelnasError as error:
            self.checks.append(Check(name, False, str(error), error.hint))
        except Exception as error:
            if is_out_of_memory(error):
                hint = "fewer --channels take less"
                self.checks.append(Check(name, False, "memory is spent", hint))
            else:
                text = f"{type(error).__name__}: {error}"
                self.checks.append(Check(name, False, text, "please report it with the versions"))
        else:
            self.checks.append(Check(name, True, "; ".join(said)))


def diagnose(
    settings: SearchSettings, work: Work | None = None, *, quick: bool = False
) -> Diagnosis:
    """Look at this installation and this machine as a search with these settings would.

    Args:
        settings: of the search.
        work: what it would search on; by default NTU RGB+D 60, cross-subject.
        quick: take no steps to estimate its time.
    """
    work = work or Work()
    found = Diagnosis(find_versions(), find_extras())
    with found.check("packages") as say:
        required = find_required()
        missing = [package.name for package in required if package.version is None]
        if missing:
            raise SkelnasError(
                f"not installed: {', '.join(missing)}", hint="pip install skelnas brings them"
            )
        try:
            import torch  # noqa: F401  # the one that is most often there and broken
        except (ImportError, OSError) as error:
            raise SkelnasError(
                f"PyTorch is installed, but cannot be imported ({error})",
                hint="install it again; pytorch.org lists the builds for each kind of machine",
            ) from None
        say(f"all {len(required)} that are required can be found, and torch imported")
    if not found.is_sound:
        return found

    from skelnas.doctor.engines import compare, explain
    from skelnas.doctor.machine import look_at_machine
    from skelnas.doctor.pace import fit, measure_pace, read_size
    from skelnas.runtime import devices

    device = None
    with found.check("device") as say:
        device = devices.choose(settings)
        say(str(device))
    found.machine = look_at_machine()
    if device is None:
        return found
    with found.check("engine") as say:
        found.engine = explain(settings)
        say(found.engine["name"])
    with found.check("engines against the reference") as say:
        say(compare(settings, device))
    size = None
    with found.check("cache" if work.cache else "size") as say:
        size = read_size(settings, work)
        say(f"{size.clips:,} clips train w, each {size.shape} (C, T, V), {size.classes} classes")
    if quick or size is None or not found.is_sound:
        return found
    with found.check("a few steps") as say:
        found.pace = measure_pace(settings, size, device)
        say(fit(found.pace, device))
    return found
