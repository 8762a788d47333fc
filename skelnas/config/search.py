"""Settings of `skelnas search`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from skelnas.config.clips import ClipSettings
from skelnas.config.machine import BatchSettings, WorkSettings
from skelnas.primitives import SPACES, candidates

Order = Literal["first", "second"]
Engine = Literal["auto", "reference", "fused", "triton"]
Hessian = Literal["difference", "exact"]
ValidationPart = Literal["random", "subject"]


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
