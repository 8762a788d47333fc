"""The card of a model: its network, its training data and its input, recorded in its file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from skelnas.config import ClipSettings
from skelnas.data.dataset import clip_shape
from skelnas.data.readers.base import Layout
from skelnas.data.readers.unlabelled import LAYOUTS, Origin
from skelnas.data.splits import HoldOut
from skelnas.data.streams import branch_channels
from skelnas.errors import InputError
from skelnas.genotype import from_dict
from skelnas.models.baselines import Baseline, Shape, find_baseline
from skelnas.models.branches import AnyNetwork, Branches
from skelnas.models.fold import fold
from skelnas.models.network import Network
from skelnas.primitives import PRIMITIVES
from skelnas.runtime.console import note
from skelnas.training.trained_clips import decode

MAX_INPUT_NUMBERS = 1 << 28
"""Of a clip: a gigabyte."""

CELL_FIELDS = ("genotype", "channels", "layers")
"""Card fields of a network of cells; a baseline has none of them."""

Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Initial:
    """The model that a training started from: its data set and protocol, CRC-32 of its weights."""

    source: str
    protocol: str
    weights: str


@dataclass(frozen=True)
class Quantized:
    """How an export was rounded: the type of its numbers, and how many clips chose their ranges."""

    type: Literal["int8"]
    calibration_clips: Positive


@dataclass(frozen=True)
class ModelCard:
    """Description of a model: its network, its training data and its input.

    Attributes:
        classes: class names in order of the class index.
        input_shape: (C, T, V) of a clip.
        joints: names of the joints of one person.
        clip_settings: `skelnas.config.ClipSettings` as plain JSON.
        source, protocol: the data set, and the split whose training part was used.
        versions: of the software that trained it.
        hold_out: the clips of the training part that were held out, or None.
        epoch: the epoch of the weights if held-out clips chose it; None for the last.
        genotype: JSON form of the cells; None for a baseline, like the next two.
        channels, layers: width of the first cell, number of cells.
        input_norm: whether each channel of a joint is normalised before the stem; cells only.
        branches: whether there is one network for each stream and one for all of them.
        baseline: name of a network in `skelnas.models.baselines`; None for cells.
        bones: pairs of connected joints of one person, for a baseline that needs them.
        layout: joints, bones and channels of the clips in the cache; None in models of earlier
            versions, like the next.
        rule: how persons were chosen and coordinates changed on the way into the cache.
        clip_length: median length of the training clips, in frames; None in models of earlier
            versions, like the next.
        person_size, score_size: usual size of a person and of a score in them, see
            `skelnas.data.matching`; None without scores.
        initial: the model that the training started from; None from scratch.
        folded: whether normalisation is folded into convolutions (`skelnas.models.fold`).
        quantized: how the numbers of an ONNX file were rounded; None if they were not.
        trained_clips: the clips that it and its initial model were trained on, see
            `skelnas.training.trained_clips`; only in files, and not in those of earlier versions.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    classes: list[str]
    input_shape: tuple[Positive, Positive, Positive]
    joints: list[str]
    clip_settings: dict[str, Any]
    source: str
    protocol: str
    versions: dict[str, str]
    hold_out: HoldOut | None = None
    epoch: Positive | None = None
    genotype: dict[str, Any] | None = None
    channels: Positive | None = None
    layers: Positive | None = None
    input_norm: bool = False
    branches: bool = False
    baseline: str | None = None
    bones: tuple[tuple[int, int], ...] = ()
    layout: Layout | None = None
    rule: dict[str, Any] | None = None
    clip_length: Positive | None = None
    person_size: PositiveFloat | None = None
    score_size: PositiveFloat | None = None
    initial: Initial | None = None
    folded: bool = False
    quantized: Quantized | None = None
    trained_clips: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Check that the fields agree; raises ValueError."""
        cells = (self.genotype, self.channels, self.layers)
        if any((part is None) != (self.baseline is not None) for part in cells):
            raise ValueError("a model has either genotype, channels and layers, or baseline")
        if self.baseline is not None and (
            not self.joints or self.input_shape[2] % len(self.joints)
        ):
            raise ValueError("the input has joints of incomplete persons")
        if math.prod(self.input_shape) > MAX_INPUT_NUMBERS:
            raise ValueError(f"an input of {math.prod(self.input_shape):,} numbers")
        if self.layout is not None:
            self._check_layout(self.layout)
        decode(self.trained_clips)
        if self.branches and (self.layout is None or "," not in self.make_clip_settings().streams):
            raise ValueError("branches without several streams of known joints")

    def _check_layout(self, layout: Layout) -> None:
        if list(layout.joints) != self.joints or not self.joints:
            raise ValueError("joints and layout disagree")
        ends = {joint for bone in layout.bones for joint in bone} | {layout.center_joint or 0}
        if not ends <= set(range(len(self.joints))):
            raise ValueError("a bone or the centre refers to a joint that does not exist")
        if clip_shape(layout, self.max_persons, self.make_clip_settings()) != self.input_shape:
            raise ValueError(f"clips of these joints are not {self.input_shape}")

    @property
    def max_persons(self) -> int:
        """Maximum number of persons in a clip; their joints are side by side in the input."""
        return self.input_shape[2] // len(self.joints)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain containers, without those that do not apply or are long."""
        omitted = {"baseline", "bones"} if self.baseline is None else set(CELL_FIELDS)
        omitted.add("trained_clips")
        optional = {"folded", "quantized", "input_norm", "branches", "epoch"}
        optional |= {"initial", "clip_length", "person_size", "score_size"}
        omitted |= {name for name in optional if not getattr(self, name)}
        fields = {name: value for name, value in asdict(self).items() if name not in omitted}
        if self.layout is not None:
            fields["layout"] = self.layout.to_dict()
        return fields

    def make_network(self) -> AnyNetwork:
        """Make the network, with newly initialised weights."""
        network = self._make_unfolded()
        return fold(network) if self.folded else network

    def _make_unfolded(self) -> AnyNetwork:
        if not self.branches:
            return self._make_branch(self.input_shape[0])
        assert self.layout is not None
        channels = branch_channels(self.make_clip_settings().streams, self.layout)
        return Branches([self._make_branch(len(indices)) for indices in channels], channels)

    def _make_branch(self, num_channels: int) -> Network | Baseline:
        if self.baseline is not None:
            joints, persons = len(self.joints), self.max_persons
            shape = Shape(num_channels, joints, persons, len(self.classes), self.bones)
            return find_baseline(self.baseline)(shape)
        assert self.channels is not None
        assert self.layers is not None
        return Network(
            from_dict(self.genotype, "the model's genotype"),
            in_channels=num_channels,
            num_classes=len(self.classes),
            channels=self.channels,
            num_layers=self.layers,
            joints=len(self.joints),
            normalised_joints=self.input_shape[2] if self.input_norm else 0,
        )

    def find_what_fixes_joints(self) -> str:
        """Return the baseline or an operation whose weights are for a number of joints, or ""."""
        if self.genotype is None:
            return self.baseline or ""
        genotype = from_dict(self.genotype, "the model's genotype")
        edges = (edge for node in genotype.normal + genotype.reduction for edge in node)
        return next((edge.op for edge in edges if PRIMITIVES[edge.op].fixes_joints), "")

    def make_clip_settings(self) -> ClipSettings:
        """Return the settings by which clips become the model's input."""
        return ClipSettings(**self.clip_settings)

    def find_origin(self, otherwise: Layout | None = None) -> Origin:
        """Return where the clips came from, so that recordings can be processed like them.

        Args:
            otherwise: the layout of a model of an earlier version, which does not record it.

        Raises:
            InputError: it does not, and there is no `otherwise`.
        """
        layout = self.layout or LAYOUTS.get(self.source)
        if layout is None or list(layout.joints) != self.joints:
            layout = otherwise
        if layout is None:
            raise InputError(
                f"the model does not say what the numbers of its {self.source} joints are",
                hint="an earlier skelnas trained it: train it again, or score it with `evaluate`",
            )
        return Origin(self.source, layout, self.max_persons, self.rule or {})


def note_unknown_facts(card: ModelCard, model: str) -> None:
    """Print what cannot be compared because a model of an earlier version does not record it."""
    unknown = [
        text
        for fact, text in (
            (card.layout, "channels and centre"),
            (card.rule, "units and choice of persons"),
            (card.person_size, "size of persons"),
        )
        if fact is None
    ]
    if unknown:
        note(f"{model}: does not record the {', '.join(unknown)} that it was trained on")
