"""Settings of `skelnas search`."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from skelnas.config.budget import BudgetSettings
from skelnas.config.clips import ClipSettings
from skelnas.config.machine import BatchSettings, WorkSettings
from skelnas.config.method import PREDICT, SPACE_HELP, MethodSettings, Space

Order = Literal["first", "second"]
Engine = Literal["auto", "reference", "fused", "triton"]
Hessian = Literal["difference", "exact"]
ValidationPart = Literal["random", "subject"]
AlphaUpdate = Literal["adam", "exponentiated"]

EXPONENTIATED = {"alpha_lr": 0.1, "alpha_weight_decay": 0.0}
"""Defaults that ``--alpha-update exponentiated`` overrides (ours; GAEA: no decay)."""


def count_weight_epochs(weights_first: float, epochs: int) -> int:
    """Return how many of the epochs ``--weights-first`` keeps for the weights."""
    return round(weights_first * epochs)


def _expect_second_order(info: ValidationInfo) -> None:
    if info.data.get("order") == "first":
        raise PydanticCustomError("order", "--order second: first order has no mixed term")


OF_BOTH_METHODS = frozenset(
    {"protocol", "seed", "space", "nodes", "layers", "channels", "epochs", "batch_size"}
)
"""Settings of a search that do not depend on its method; the others are those of a gradient."""


class SearchSettings(MethodSettings, BudgetSettings, ClipSettings, WorkSettings, BatchSettings):
    """Settings of `skelnas search`."""

    group = "Search"
    everyday = frozenset(
        {
            *("method", "genotypes", "jobs"),
            *("protocol", "seed", "space", "order", "hold_out", "layers", "channels", "epochs"),
            *("batch_size", "lr", "alpha_lr", "frames", "align", "streams", "device", "precision"),
            *("max_params", "max_macs"),
        }
    )
    changeable = MethodSettings.changeable | {
        "engine",
        "cuda_graphs",
        "checkpoint_cells",
        "rank_timeout",
    }
    added = MethodSettings.added | {"alpha_update", "weights_first", "steer"}

    protocol: str = Field("", description="Protocol to search on (xsub or the only one).")
    seed: int = Field(0, ge=0, description="Seed of all random numbers.")
    space: Space = Field("sar", description=SPACE_HELP)  # paper: Table I
    order: Order = Field(
        "second",  # paper; release: first
        description="Order of the architecture gradient.",
    )
    engine: Engine = Field("auto", description="auto, reference, fused or triton.")
    cuda_graphs: bool = Field(True, description="Replay steps as CUDA graphs on a single GPU.")
    validation: ValidationPart = Field(
        "random",  # ours; paper: "validation loss"; release: the test part
        description="Halve the clips: random or subject.",
    )
    hold_out: float = Field(
        0.0,  # ours; 0.2 with --repeats
        ge=0,
        lt=1,
        description="Fraction of training subjects to hold out.",
    )
    layers: int = Field(6, ge=1, le=1_000, description="Number of cells.")  # paper; release: 9
    channels: int = Field(16, ge=1, le=100_000, description="Channels of the first cell.")  # paper
    nodes: int = Field(4, ge=1, le=100, description="Intermediate nodes per cell.")  # paper
    epochs: int = Field(
        35,  # paper; release: 40
        ge=1,
        description="Passes over the half that trains the weights.",
    )
    batch_size: int = Field(8, ge=1, description="Clips per batch, over all ranks.")  # release
    lr: float = Field(0.015, gt=0, description="Initial learning rate of the weights.")  # paper
    lr_min: float = Field(
        0.001,  # release
        ge=0,
        description="Final learning rate of the weights.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of the weights.")  # release
    weight_decay: float = Field(3e-4, ge=0, description="Weight decay of the weights.")  # release
    grad_clip: float = Field(
        5.0,  # release
        gt=0,
        description="Maximum norm of the weights' gradient.",
    )
    alpha_update: AlphaUpdate = Field(
        "adam",  # release; GAEA: exponentiated
        description="How alphas change: adam or exponentiated.",
    )
    alpha_lr: float | Literal["auto"] = Field(
        3e-4,  # release
        description="Learning rate of the alphas.",
    )
    alpha_weight_decay: float = Field(
        1e-3,  # release
        ge=0,
        description="Weight decay of the alphas.",
    )
    weights_first: float = Field(
        0.0,  # paper, release
        ge=0,
        lt=1,
        description="Fraction of the epochs without alpha steps.",
    )
    steer: bool = Field(
        False,  # ours; LightNAS
        description="Steer the alphas towards the budget, too.",
    )
    hessian: Hessian = Field(
        "difference",  # paper
        description="Mixed term: difference or exact.",
    )
    perturbation: float = Field(
        0.01,  # DARTS
        gt=0,
        description="Length of the finite-difference step.",
    )
    stop_skips: int | None = Field(
        None,  # ours; DARTS+: 1
        ge=0,
        description="Stop if the normal cell has more skips than N.",
    )
    stop_stable: int | None = Field(
        None,  # ours; DARTS+: 10
        ge=1,
        description="Stop if the genotype is stable for N epochs.",
    )
    checkpoint_cells: bool = Field(False, description="Recompute cells to save memory; slower.")

    @property
    def weight_epochs(self) -> int:
        """Number of epochs, from the first, that train the weights only."""
        return count_weight_epochs(self.weights_first, self.epochs)

    @model_validator(mode="before")
    @classmethod
    def _follow_alpha_update(cls, values: dict[str, Any]) -> dict[str, Any]:
        is_exponentiated = values.get("alpha_update") == "exponentiated"
        return {**EXPONENTIATED, **values} if is_exponentiated else values

    @field_validator("alpha_lr", mode="wrap")
    @classmethod
    def _check_alpha_lr(
        cls, value: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> object:
        try:
            rate = validate(value)
        except ValidationError:
            rate = 0.0
        if rate != "auto" and rate <= 0:
            raise PydanticCustomError("alpha_lr", "a positive number or auto")
        if rate == "auto" and info.data.get("alpha_update") == "exponentiated":
            raise PydanticCustomError("alpha_lr", "a number: auto needs --alpha-update adam")
        return rate

    @field_validator("alpha_weight_decay")
    @classmethod
    def _check_alpha_weight_decay(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("alpha_update") == "exponentiated":
            raise PydanticCustomError("decay", "0: --alpha-update exponentiated has no decay")
        return value

    @field_validator("weights_first")
    @classmethod
    def _check_weights_first(cls, value: float, info: ValidationInfo) -> float:
        epochs = info.data.get("epochs", 0)
        if value and epochs and not 0 < count_weight_epochs(value, epochs) < epochs:
            expected = f"0, or a share of 1 to {epochs - 1} of the {epochs} epochs"
            if epochs == 1:
                expected = "0 where there is one epoch"
            raise PydanticCustomError("weights_first", "{expected}", {"expected": expected})
        return value

    @classmethod
    def of_gradient(cls) -> set[str]:
        """Return the names of the settings that other methods do not have."""
        return {*inspect.get_annotations(cls)} & cls.model_fields.keys() - OF_BOTH_METHODS

    def of_predict(self) -> dict[str, Any]:
        """Return all settings that ``--method predict`` has."""
        names = self.__class__.model_fields.keys() - self.of_gradient()
        return {name: getattr(self, name) for name in sorted(names)}

    def of_trainings(self) -> dict[str, Any]:
        """Return the settings that the trainings of a search take from it."""
        names = {*ClipSettings.model_fields, *WorkSettings.model_fields}
        if self.method == "predict":
            names |= {"layers", "channels", "epochs", "batch_size"}
        return self.model_dump(include=names)

    def fixed(self) -> dict[str, Any]:
        """Return the settings of the method that a resumed run may not change."""
        if self.method == "gradient":
            return super().fixed()
        return {k: v for k, v in self.of_predict().items() if k not in self.changeable}

    @model_validator(mode="before")
    @classmethod
    def _follow_method(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**PREDICT, **values} if values.get("method") == "predict" else values

    @field_validator("*")
    @classmethod
    def _expect_gradient(cls, value: object, info: ValidationInfo) -> object:
        is_of_gradient = info.field_name in cls.of_gradient()
        return cls._expect_method("gradient", value, info) if is_of_gradient else value

    @field_validator("hessian")
    @classmethod
    def _check_hessian(cls, value: str, info: ValidationInfo) -> str:
        if value == "exact":
            _expect_second_order(info)
            if info.data.get("engine") not in ("auto", "reference"):
                expected = "--engine reference or auto: no other can be differentiated twice"
                raise PydanticCustomError("engine", "{expected}", {"expected": expected})
        return value

    @field_validator("steer")
    @classmethod
    def _check_steer(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("max_params") is None and info.data.get("max_macs") is None:
            raise PydanticCustomError("steer", "--max-params or --max-macs, where to steer to")
        return value

    @field_validator("perturbation")
    @classmethod
    def _check_perturbation(cls, value: float, info: ValidationInfo) -> float:
        if value != cls.model_fields["perturbation"].default:
            _expect_second_order(info)
            if info.data.get("hessian") == "exact":
                raise PydanticCustomError("hessian", "--hessian difference: 'exact' takes no step")
        return value
