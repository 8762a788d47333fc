"""Settings of each verb: name, default, meaning and where the default comes from.

The text of a field is also the help of its flag. "Paper" is SAR-NAS, "release" the code that
its authors published, "ours" a choice of this project.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from skelnas.genotype import SPACES, candidates

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "tf32", "bf16", "auto"]
Store = Literal["auto", "float32", "float16", "host"]
Order = Literal["first", "second"]
Engine = Literal["auto", "reference", "fused", "triton"]
Hessian = Literal["difference", "exact"]
Interpolation = Literal["linear", "nearest"]
ValidationPart = Literal["random", "subject"]
ScoredPart = Literal["test", "held-out"]
Statistics = Literal["sync", "rank"]
Recipe = Literal["paper", "strong"]
ExportFormat = Literal["onnx", "torchscript", "safetensors-fused"]
BaselineName = Literal["hcn", "st-gcn", "temporal-conv"]

STREAMS = ("joint", "bone", "motion")
"""What a network can see of a clip, in the order in which it sees them."""


LARGEST = 1e18
"""Numbers beyond it fit neither 64-bit integers nor, multiplied, float32."""

SHORT_EPOCHS = 30
"""Epochs of a training that compares genotypes, not the paper's 350 (ours)."""

RECIPES: dict[Recipe, dict[str, Any]] = {
    "paper": {},
    "strong": {
        "batch_size": 64,
        "lr": 0.1,
        "warmup": 0.05,
        "nesterov": True,
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "drop_path": 0.1,
        "ema": 0.999,
        "input_norm": True,
        "rotate": 15.0,
        "scale": 0.1,
        "crop": 0.5,
        "flip": 0.5,
        "precision": "auto",
    },
}
"""What a recipe has for a setting in place of the default, which is the paper's."""


class Settings(BaseModel):
    """Settings are frozen once made, and know no names but their own."""

    group: ClassVar[str]
    """What the fields of this very class are about; a heading of the help."""

    changeable: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not change what comes out, so that a run can change them when it goes on."""

    @classmethod
    def meaning(cls, name: str) -> str:
        """Return what a field is about, for the help."""
        return cls.model_fields[name].description or ""

    def asked(self) -> dict[str, Any]:
        """Return the fields that a run is defined by, as plain containers."""
        return self.model_dump(exclude=set(self.changeable))

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _check_boolean(cls, value: object, info: ValidationInfo) -> object:
        """Take true and false for switches alone: they would pass for 1 and 0."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(value, bool) and kinds & {int, float}:
            raise PydanticCustomError("boolean", "a number")
        if not isinstance(value, bool) and bool in kinds:
            raise PydanticCustomError("boolean", "true or false")
        return value

    @field_validator("*")
    @classmethod
    def _check_number(cls, value: object) -> object:
        if isinstance(value, int | float) and abs(value) > LARGEST:
            raise PydanticCustomError("size", "a number up to {most}", {"most": f"{LARGEST:g}"})
        return value


class ClipSettings(Settings):
    """How a recording of any length becomes the tensor that a network sees."""

    group = "Clips"

    frames: int = Field(
        112, ge=1, le=10_000, description="T, frames a clip is sampled to (paper: 112)"
    )
    interpolation: Interpolation = Field(
        "linear",
        description="how frames are sampled: 'linear' in time, never across absence (ours), "
        "or 'nearest', the paper's strict reading",
    )
    center: bool = Field(
        True,
        description="put the origin at the first person's centre joint when first seen (ours)",
    )
    align: bool = Field(
        False,
        description="turn each clip so that the first person's spine and hips start along the "
        "axes; helps across views (ours: off)",
    )
    streams: str = Field(
        "joint",
        description="what the network sees, with commas between: 'joint' positions (paper), 'bone' "
        "vectors to them from their parents, 'motion' to the next frame",
    )

    @field_validator("streams")
    @classmethod
    def _order_streams(cls, value: str) -> str:
        chosen = {name.strip() for name in value.split(",")}
        if not chosen <= set(STREAMS):
            known = ", ".join(STREAMS)
            raise PydanticCustomError("streams", f"some of {known}, with commas between")
        return ",".join(name for name in STREAMS if name in chosen)


class DeviceSettings(Settings):
    """Where a verb runs, and how it computes there."""

    group = "Device"

    device: Device = Field("auto", description="'auto' takes CUDA, then MPS, then the CPU")
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads; 0 leaves the choice to PyTorch"
    )
    precision: Precision = Field(
        "fp32",
        description="arithmetic: 'fp32', 'tf32' for products on CUDA, or 'bf16' in forward passes, "
        "with weights, alphas, statistics and loss in fp32; 'auto' takes bf16 on CUDA devices that "
        "have it and fp32 elsewhere; see docs/method.md (ours)",
    )


class WorkSettings(DeviceSettings):
    """Where a verb keeps a whole cache, and how it gets on with other ranks."""

    group = "Device"

    store: Store = Field(
        "auto",
        description="how clips are kept: on the device as 'float32' or 'float16', or in the memory "
        "of the 'host'; 'auto' takes the first that leaves enough of the device (ours)",
    )
    rank_timeout: int = Field(
        300, ge=1, description="seconds that a rank waits for the others before it gives up (ours)"
    )


class BatchSettings(Settings):
    """How the batches of a search or a training are shared by several ranks."""

    group = "Several ranks"

    batch_norm: Statistics = Field(
        "sync",
        description="with several ranks, whose clips BatchNorm takes statistics of: 'sync', the "
        "whole batch, as one process does, or 'rank', each rank its own (ours: sync)",
    )


class AugmentSettings(Settings):
    """Random changes to training clips; all off by default, as in the paper."""

    group = "Augmentation"

    rotate: float = Field(
        0.0, ge=0, le=180, description="rotate each clip by up to this many degrees an axis"
    )
    scale: float = Field(
        0.0, ge=0, lt=1, description="scale each axis by up to this share, 0.1 for 0.9 to 1.1"
    )
    crop: float = Field(
        1.0, gt=0, le=1, description="cut out a stretch of at least this share of the frames"
    )
    shear: float = Field(
        0.0, ge=0, description="add up to this share of each axis to each other (paper: none)"
    )
    flip: float = Field(
        0.0,
        ge=0,
        le=1,
        description="chance to mirror a clip: x is negated, left and right joints change places "
        "(paper: none)",
    )
    jitter: float = Field(
        0.0,
        ge=0,
        description="standard deviation of noise on every coordinate, in the unit of the data "
        "(paper: none)",
    )


def _expect_second_order(info: ValidationInfo) -> None:
    if info.data.get("order") == "first":
        raise PydanticCustomError("order", "--order second: the first has no mixed term")


class SearchSettings(ClipSettings, WorkSettings, BatchSettings):
    """Settings of `skelnas search`."""

    group = "Search"
    changeable = frozenset({"engine", "cuda_graphs", "checkpoint_cells", "rank_timeout"})

    protocol: str = Field(
        "", description="split to search on, its test part never touched; xsub or the only one"
    )
    seed: int = Field(0, ge=0, description="seed of everything that is drawn at random")
    space: str = Field(
        "sar",
        description="candidate operations: 'sar' is Table I, 'sar-no-se' Table V's ablation, "
        "'darts' that of DARTS (paper: these), or ids with commas between",
    )
    order: Order = Field(
        "second", description="architecture gradient: Eq. (4) or without its second term (paper)"
    )
    engine: Engine = Field(
        "auto",
        description="what evaluates the supernet: 'reference', readable and slow; 'fused', the "
        "same to rounding; 'triton', the same again as kernels for CUDA; 'auto' takes the last of "
        "them that can do what is asked (ours). A run can change it when it goes on",
    )
    cuda_graphs: bool = Field(
        True,
        description="on one GPU, record the steps as CUDA graphs and replay them (ours). A run "
        "can change it when it goes on",
    )
    validation: ValidationPart = Field(
        "random",
        description="the half of the training part that drives the alphas: random clips, or "
        "clips of other subjects (ours: random)",
    )
    hold_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training part's subjects that neither half has, kept to choose "
        "between runs (ours: none, 0.2 with --repeats)",
    )
    layers: int = Field(6, ge=1, le=1_000, description="cells of the supernet (paper: 6)")
    channels: int = Field(
        16, ge=1, le=100_000, description="channels of the first cell (paper: 16)"
    )
    nodes: int = Field(4, ge=1, le=100, description="intermediate nodes of a cell (paper: 4)")
    epochs: int = Field(35, ge=1, description="passes over the half that trains w (paper: 35)")
    batch_size: int = Field(8, ge=1, description="clips a batch, of all ranks (release: 8)")
    lr: float = Field(0.015, gt=0, description="learning rate of w at the start (paper: 0.015)")
    lr_min: float = Field(0.001, ge=0, description="and at the end of its cosine (release: 0.001)")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of w (release: 0.9)")
    weight_decay: float = Field(3e-4, ge=0, description="weight decay of w (release: 3e-4)")
    grad_clip: float = Field(5.0, gt=0, description="largest norm of w's gradient (release: 5)")
    alpha_lr: float = Field(3e-4, gt=0, description="Adam's rate for alpha (release: 3e-4)")
    alpha_weight_decay: float = Field(
        1e-3, ge=0, description="weight decay of alpha (release: 1e-3)"
    )
    hessian: Hessian = Field(
        "difference",
        description="the second order's mixed term: by finite 'difference' (paper), or 'exact' by "
        "double backward, which takes more memory (ours)",
    )
    perturbation: float = Field(
        0.01,
        gt=0,
        description="length of the finite-difference step of the second order (DARTS: 0.01); "
        "see docs/method.md",
    )
    stop_skips: int | None = Field(
        None,
        ge=0,
        description="end when the normal cell has more skip_connect than this (DARTS+: 1; "
        "ours: never)",
    )
    stop_stable: int | None = Field(
        None,
        ge=1,
        description="end when the genotype has been the same for so many epochs (DARTS+: 10; "
        "ours: never)",
    )

    @field_validator("hessian")
    @classmethod
    def _check_hessian(cls, value: str, info: ValidationInfo) -> str:
        if value == "exact":
            _expect_second_order(info)
            if info.data.get("engine") not in ("auto", "reference"):
                expected = "--engine reference or auto: no other can be differentiated twice"
                raise PydanticCustomError("engine", "{expected}", {"expected": expected})
        return value

    @field_validator("perturbation")
    @classmethod
    def _check_perturbation(cls, value: float, info: ValidationInfo) -> float:
        if value != cls.model_fields["perturbation"].default:
            _expect_second_order(info)
            if info.data.get("hessian") == "exact":
                raise PydanticCustomError("hessian", "--hessian difference: 'exact' takes no step")
        return value

    @field_validator("space")
    @classmethod
    def _order_space(cls, value: str) -> str:
        try:
            return value if value in SPACES else ",".join(candidates(value))
        except ValueError as error:
            raise PydanticCustomError("space", "{expected}", {"expected": str(error)}) from None

    checkpoint_cells: bool = Field(
        False,
        description="keep only the inputs of each cell for backward and compute the cell anew "
        "there: the same numbers in less memory and more time (ours: off). A run can change it "
        "when it goes on",
    )


class TrainSettings(ClipSettings, AugmentSettings, WorkSettings, BatchSettings):
    """Settings of `skelnas train`."""

    group = "Training"
    changeable = frozenset({"rank_timeout"})

    recipe: Recipe = Field(
        "paper",
        description="what all settings are that are not given: 'paper', as SAR-NAS was trained, "
        "or 'strong', with what has become usual since (ours)",
    )

    protocol: str = Field(
        "", description="split whose training part is learned from; xsub or the only one"
    )
    seed: int = Field(0, ge=0, description="seed of everything that is drawn at random")
    hold_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training part's subjects that are not learned from, for "
        "`skelnas evaluate --part held-out` (ours: none)",
    )
    select_epoch: bool = Field(
        False,
        description="let the model be that of the epoch that is best on what --hold-out keeps, "
        "not that of the last (ours: the last)",
    )
    layers: int = Field(9, ge=1, le=1_000, description="cells of the network (paper: 9)")
    channels: int = Field(
        36, ge=1, le=100_000, description="channels of the first cell (release: 36)"
    )
    epochs: int = Field(350, ge=1, description="passes over the training part (paper: 350)")
    batch_size: int = Field(46, ge=1, description="clips a batch, of all ranks (release: 46)")
    lr: float = Field(0.01, gt=0, description="learning rate at the start (paper: 0.01)")
    lr_min: float = Field(0.0, ge=0, description="and at the end of its cosine (release: 0)")
    warmup: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training in which the rate rises to --lr, before its cosine "
        "(paper: none)",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum (paper: 0.9)")
    nesterov: bool = Field(False, description="momentum as Nesterov's (paper: plain)")
    weight_decay: float = Field(3e-4, ge=0, description="weight decay (release: 3e-4)")
    grad_clip: float = Field(5.0, gt=0, description="largest norm of the gradient (release: 5)")
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a label that is spread over all classes (paper: none)",
    )
    drop_path: float = Field(
        0.2, ge=0, lt=1, description="chance to drop an edge, reached in steps (release: 0.2)"
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="how much of a running average of the weights a step leaves, such as 0.999; "
        "the average is the model then (paper: none)",
    )
    input_norm: bool = Field(
        False,
        description="normalise each number of each joint over clips and frames before the stem, "
        "after ST-GCN (paper: none)",
    )
    compile: bool = Field(
        False,
        description="let torch.compile make the training step; the first steps take long (ours: "
        "off)",
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_recipe(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Let the recipe say what is not given."""
        chosen = values.get("recipe", cls.model_fields["recipe"].default)
        return {**RECIPES.get(chosen, {}), **values}

    @classmethod
    def meaning(cls, name: str) -> str:
        """Return what a field is about, and what a recipe has for it in place of the default."""
        values = {recipe: own[name] for recipe, own in RECIPES.items() if name in own}
        others = [f"; {recipe}: {'on' if it is True else it}" for recipe, it in values.items()]
        return super().meaning(name) + "".join(others)

    def by_recipe(self, name: str) -> Any:
        """Return what a setting is in the recipe."""
        return RECIPES[self.recipe].get(name, type(self).model_fields[name].default)

    def beside_recipe(self) -> list[str]:
        """Name the settings of how it learns that are not as in the recipe."""
        free = {"recipe", "protocol", "seed", "hold_out", "select_epoch", "compile"}
        free |= {"layers", "channels"}
        for other in (ClipSettings, DeviceSettings, BatchSettings):
            free |= set(other.model_fields)
        learning = [name for name in type(self).model_fields if name not in free]
        return sorted(name for name in learning if getattr(self, name) != self.by_recipe(name))


class EvaluateSettings(WorkSettings):
    """Settings of `skelnas evaluate`."""

    group = "Evaluation"

    protocol: str = Field("", description="split to score; the one the model was trained on")
    part: ScoredPart = Field(
        "test",
        description="clips to score: the 'test' part, or what was 'held-out' of the training part",
    )
    batch_size: int = Field(
        64, ge=1, description="clips scored together; the result is the same, to rounding"
    )
    views: int = Field(
        1,
        ge=1,
        le=1_000,
        description="stretches of each clip that are scored and averaged; 1 is the whole clip "
        "(ours: 1)",
    )
    latency: bool = Field(
        False,
        description="also time the forward pass on this device, of one clip and of --batch-size",
    )
    passes: int = Field(
        30, ge=2, description="forward passes that --latency times after five to warm up (ours: 30)"
    )
    input_size: str = Field(
        "",
        description="frames x joints, such as 224x224: also count parameters and multiply-adds at "
        "this size of the input",
    )

    @field_validator("input_size")
    @classmethod
    def _check_size(cls, value: str) -> str:
        if value and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", value):
            raise PydanticCustomError("size", "TxV, two whole numbers such as 224x224")
        return value


class PredictSettings(DeviceSettings):
    """Settings of `skelnas predict`."""

    group = "Prediction"

    top: int = Field(5, ge=1, description="classes that are named, the likeliest first")
    batch_size: int = Field(
        64, ge=1, description="recordings scored together; the result is the same, to rounding"
    )
    window: int = Field(
        0,
        ge=0,
        le=100_000,
        description="of a stream: frames that are looked at together; 0 for as many as a clip of "
        "the model has",
    )
    stride: int = Field(
        8, ge=1, description="of a stream: frames from one prediction to the next (ours: 8)"
    )
