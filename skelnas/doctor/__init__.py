"""`skelnas doctor`: check the installation and the engines, estimate a search and a training.

Modules that need torch are imported inside a check, so that a broken installation is reported as
a failed check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skelnas.config import SearchSettings, TrainSettings
from skelnas.doctor.packages import Package, find_extras, find_required, find_versions
from skelnas.errors import SkelnasError, is_out_of_memory
from skelnas.genotype import BUILT_IN, Genotype

if TYPE_CHECKING:
    from skelnas.doctor.machine import Machine
    from skelnas.doctor.pace import Pace
    from skelnas.doctor.training_pace import TrainingsPace


@dataclass(frozen=True)
class Workload:
    """The data of the search and the training to estimate.

    Attributes:
        cache: the cache; None to use the three numbers instead.
        joints: V, the joints of all persons.
        classes: number of classes.
        clips: clips in the half that trains the weights of a search.
    """

    cache: Path | None = None
    joints: int = 50
    classes: int = 60
    clips: int = 20_046


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        passed: whether a search can work here as far as this is concerned.
        detail: what was found.
        hint: what to do if the check failed.
    """

    name: str
    passed: bool
    detail: str
    hint: str | None = None


@dataclass
class Diagnosis:
    """The findings of `diagnose`; None stands for what a failed check kept from being determined.

    Attributes:
        versions: of skelnas, Python and the packages that affect results.
        extras: the packages of each extra, with their versions.
        machine: processor, memory, threads and devices.
        engine: ``name`` of the engine that a search would use, and ``why``.
        checks: in the order in which they were run.
        pace: the estimated time and memory of a search by gradient.
        training_pace: those of a training.
        trainings_pace: the estimated time of a search by short trainings.
    """

    versions: dict[str, str]
    extras: dict[str, list[Package]]
    machine: Machine | None = None
    engine: dict[str, str] | None = None
    checks: list[Check] = field(default_factory=list)
    pace: Pace | None = None
    training_pace: Pace | None = None
    trainings_pace: TrainingsPace | None = None

    @property
    def is_sound(self) -> bool:
        """Whether every check has passed."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain containers, for JSON."""
        return {"sound": self.is_sound, **asdict(self)}

    @contextmanager
    def check(self, name: str) -> Iterator[Callable[[str], None]]:
        """Record a check of the block in the context: it fails if the block raises.

        Yields:
            A function that adds to the detail of the check.
        """
        details: list[str] = []
        try:
            yield details.append
        except SkelnasError as error:
            self.checks.append(Check(name, False, str(error), error.hint))
        except Exception as error:
            if is_out_of_memory(error):
                hint = "use fewer --channels"
                self.checks.append(Check(name, False, "out of memory", hint))
            else:
                text = f"{type(error).__name__}: {error}"
                self.checks.append(Check(name, False, text, "please report this with the versions"))
        else:
            self.checks.append(Check(name, True, "; ".join(details)))


def diagnose(
    settings: SearchSettings,
    workload: Workload | None = None,
    *,
    training: TrainSettings | None = None,
    genotype: Genotype = BUILT_IN["ntu_cs112se30"],
    quick: bool = False,
) -> Diagnosis:
    """Check whether a search with these settings works here; estimate it and a training.

    A search by short trainings needs no engine, and only its own trainings are estimated.

    Args:
        settings: of the search.
        workload: its data; NTU RGB+D 60, cross-subject, by default.
        training: settings of the training, or of those of the search; None for the defaults, on
            the device of the search.
        genotype: that is trained, but for a search by short trainings.
        quick: skip the steps that are timed.
    """
    workload = workload or Workload()
    training = training or TrainSettings(device=settings.device, threads=settings.threads)
    diagnosis = Diagnosis(find_versions(), find_extras())
    with diagnosis.check("packages") as report:
        report(_check_packages())
    if not diagnosis.is_sound:
        return diagnosis

    from skelnas.doctor.engines import compare_engines, explain_engine
    from skelnas.doctor.machine import describe_machine
    from skelnas.doctor.pace import check_memory, measure_pace, read_size
    from skelnas.doctor.training_pace import (
        TRAINING_HINT,
        measure_training,
        measure_trainings,
    )
    from skelnas.runtime import devices

    device = None
    with diagnosis.check("device") as report:
        device = devices.choose(settings)
        report(str(device))
    diagnosis.machine = describe_machine()
    if device is None:
        return diagnosis
    by_gradient = settings.method == "gradient"
    if by_gradient:
        with diagnosis.check("engine") as report:
            diagnosis.engine = explain_engine(settings)
            report(diagnosis.engine["name"])
        with diagnosis.check("engines against the reference") as report:
            report(compare_engines(settings, device))
    size = None
    with diagnosis.check("cache" if workload.cache else "size") as report:
        of_protocol = training.model_copy(update={"protocol": settings.protocol})
        size = read_size(settings if by_gradient else of_protocol, workload)
        train = "train w" if by_gradient else "to train on"
        report(f"{size.clips:,} clips {train}, each {size.shape} (C, T, V), {size.classes} classes")
    if quick or size is None or not diagnosis.is_sound:
        return diagnosis
    if not by_gradient:
        with diagnosis.check("a few steps of a training of the search") as report:
            diagnosis.trainings_pace = measure_trainings(settings, training, size, device)
            report(check_memory(diagnosis.trainings_pace.training, device, TRAINING_HINT))
        return diagnosis
    with diagnosis.check("a few steps of a search") as report:
        diagnosis.pace = measure_pace(settings, size, device)
        report(check_memory(diagnosis.pace, device))
    with diagnosis.check("a few steps of a training") as report:
        size = read_size(training, workload)
        diagnosis.training_pace = measure_training(training, genotype, size, device)
        report(check_memory(diagnosis.training_pace, device, TRAINING_HINT))
    return diagnosis


def _check_packages() -> str:
    """Check that all required packages are installed and that torch can be imported."""
    required = find_required()
    missing = [package.name for package in required if package.version is None]
    if missing:
        raise SkelnasError(
            f"not installed: {', '.join(missing)}", hint="`pip install skelnas` installs them"
        )
    try:
        import torch  # noqa: F401  # the package most likely to be installed but broken
    except (ImportError, OSError) as error:
        raise SkelnasError(
            f"PyTorch is installed, but cannot be imported ({error})",
            hint="reinstall it; pytorch.org lists the builds for each platform",
        ) from None
    return f"all {len(required)} required packages are installed, and torch can be imported"
