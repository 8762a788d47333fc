"""Networks by name, with new weights, for training loops of one's own."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from skelnas.data.readers.base import Layout
from skelnas.data.readers.layouts import find_layout
from skelnas.errors import InputError, UsageError
from skelnas.genotype import BUILT_IN, Genotype, load, read_random
from skelnas.models.baselines import BASELINES, Baseline, Shape, find_baseline
from skelnas.models.network import Network

DEFAULT_IN_CHANNELS = 3
"""x, y and z, or x, y and a score."""


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that `create_model` knows, besides ``random:SEED``.

    Args:
        pattern: as for file names, such as ``*gcn``.
    """
    return [name for name in sorted((*BASELINES, *BUILT_IN)) if fnmatchcase(name, pattern)]


def create_model(
    architecture: Genotype | str,
    num_classes: int,
    joints: Layout | str | int,
    *,
    persons: int = 1,
    in_channels: int | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_norm: bool = False,
) -> Network | Baseline:
    """Create a network with new weights, from PyTorch's global random generator.

    Args:
        architecture: a genotype, its JSON file, ``random:SEED``, or a name of `list_models`.
        num_classes: width of the classifier.
        joints: of one person: a layout, the name of one (see ``skelnas layouts``), or how many.
        persons: M; their joints are side by side in the input.
        in_channels: of a clip; by default those of the layout, or 3.
        channels: of the first cell, 36 by default; a baseline has its own.
        layers: number of cells, 9 by default; a baseline has its own.
        input_norm: normalise each channel of each joint first; cells only.

    Returns:
        A module that maps clips [N, in_channels, T, persons * joints] to logits [N, num_classes].

    Raises:
        UsageError: there is no such architecture, or the arguments do not fit it.
        InputError: there is no such layout, or the genotype is broken.
    """
    layout = find_layout(joints) if isinstance(joints, str) else joints
    num_joints = layout if isinstance(layout, int) else len(layout.joints)
    if in_channels is None:
        in_channels = DEFAULT_IN_CHANNELS if isinstance(layout, int) else len(layout.channels)
    sizes = {"num_classes": num_classes, "joints": num_joints, "persons": persons}
    for name, size in {**sizes, "in_channels": in_channels}.items():
        if size < 1:
            raise UsageError(f"{name}={size}: expected at least 1")
    cells = {"channels": channels, "num_layers": layers}
    given = {name: size for name, size in cells.items() if size is not None}
    found = find_architecture(architecture)
    if isinstance(found, str):
        if given or input_norm:
            raise UsageError(
                f"channels, layers and input_norm are of cells, and {found} has none",
                hint="leave them out: a baseline has the sizes of its paper",
            )
        bones = () if isinstance(layout, int) else layout.bones
        return _create_baseline(found, Shape(in_channels, num_joints, persons, num_classes, bones))
    return Network(
        found,
        in_channels=in_channels,
        num_classes=num_classes,
        joints=num_joints,
        normalised_joints=persons * num_joints if input_norm else 0,
        **given,
    )


def _create_baseline(name: str, shape: Shape) -> Baseline:
    baseline = find_baseline(name)
    if baseline.needs_bones and not shape.bones:
        raise InputError(
            f"{name} needs to know which joints are connected",
            hint='pass joints as a layout with bones, such as a cache\'s, or as "coco17"',
        )
    return baseline(shape)


def find_architecture(architecture: Genotype | str) -> Genotype | str:
    """Return a genotype as it is, by its name or from its file, or the name of a baseline.

    Raises:
        UsageError: there is none.
        InputError: the file is broken.
    """
    if isinstance(architecture, Genotype) or architecture in BASELINES:
        return architecture
    is_name = architecture in BUILT_IN or read_random(architecture) is not None
    if not is_name and not Path(architecture).exists():
        names = list_models()
        close = get_close_matches(architecture, names, n=1)
        raise UsageError(
            f"unknown model {architecture!r}" + (f"; did you mean {close[0]}?" if close else ""),
            hint=f"there are {', '.join(names)}, random:SEED, and files of genotypes",
        )
    return load(architecture)
