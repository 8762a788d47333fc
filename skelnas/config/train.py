"""Settings and recipes of `skelnas train`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from skelnas.config.budget import BudgetSettings
from skelnas.config.clips import AugmentSettings, ClipSettings
from skelnas.config.machine import BatchSettings, WorkSettings

Recipe = Literal["paper", "strong"]
ClassWeights = Literal["none", "balanced"]
BaselineName = Literal["hcn", "st-gcn", "temporal-conv"]

SHORT_EPOCHS = 30
"""Epochs of a training that only compares genotypes (ours; the paper trains for 350)."""

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
"""Defaults that each recipe overrides; those of the fields are the paper's."""

DEFAULT_RECIPE: Recipe = "strong"
"""Ours; docs/results.md has the ablation."""


class TrainSettings(BudgetSettings, ClipSettings, AugmentSettings, WorkSettings, BatchSettings):
    """Settings of `skelnas train`."""

    group = "Training"
    changeable = frozenset({"rank_timeout"})
    added = frozenset({"patience", "class_weights", "init", "freeze"})
    everyday = frozenset(
        {
            *("recipe", "protocol", "seed", "hold_out", "patience", "layers", "channels", "epochs"),
            *("batch_size", "lr", "class_weights", "branches", "frames", "align", "streams"),
            *("flip", "init", "freeze", "max_params", "max_macs", "device", "precision"),
        }
    )

    overrides: ClassVar[dict[str, Any]] = {}
    """Defaults of a subclass, whatever the recipe."""

    recipe: Recipe = Field(DEFAULT_RECIPE, description="Set of defaults: the paper's or stronger.")

    protocol: str = Field("", description="Protocol to train on (xsub or the only one).")
    seed: int = Field(0, ge=0, description="Seed of all random numbers.")
    hold_out: float = Field(
        0.0,  # ours
        ge=0,
        lt=1,
        description="Fraction of training subjects to hold out.",
    )
    select_epoch: bool = Field(
        False,  # ours: the last epoch; release: the best on the test part
        description="Keep the best epoch on held-out clips.",
    )
    patience: int = Field(
        0,  # ours
        ge=0,
        description="Stop N epochs after the lowest held-out loss.",
    )
    init: str = Field("", description="Trained model to start from (fine-tuning).")
    freeze: bool = Field(
        False,  # ours
        description="Learn only the classifier; for --init.",
    )
    layers: int = Field(9, ge=1, le=1_000, description="Number of cells.")  # paper
    channels: int = Field(
        36,  # release; matches the paper's 1.3 M parameters
        ge=1,
        le=100_000,
        description="Channels of the first cell.",
    )
    epochs: int = Field(350, ge=1, description="Passes over the training part.")  # paper
    batch_size: int = Field(46, ge=1, description="Clips per batch, over all ranks.")  # release
    lr: float = Field(0.01, gt=0, description="Peak learning rate.")  # paper
    lr_min: float = Field(0.0, ge=0, description="Final learning rate.")  # release
    warmup: float = Field(
        0.0,  # paper: none
        ge=0,
        lt=1,
        description="Fraction of steps in which the rate rises.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum.")  # paper
    nesterov: bool = Field(False, description="Use Nesterov momentum.")  # paper: plain
    weight_decay: float = Field(3e-4, ge=0, description="Weight decay.")  # release
    grad_clip: float = Field(5.0, gt=0, description="Maximum norm of the gradient.")  # release
    label_smoothing: float = Field(
        0.0,  # paper: none
        ge=0,
        lt=1,
        description="Fraction of labels spread over classes.",
    )
    class_weights: ClassWeights = Field(
        "none",  # paper
        description="none, or balanced: weigh rare classes up.",
    )
    drop_path: float = Field(
        0.2,  # release
        ge=0,
        lt=1,
        description="Final probability of dropping an edge.",
    )
    ema: float = Field(
        0.0,  # paper: none
        ge=0,
        lt=1,
        description="Decay of the weights' average; 0 is off.",
    )
    input_norm: bool = Field(
        False,  # paper: none; after ST-GCN
        description="Normalise each coordinate before the stem.",
    )
    branches: bool = Field(
        False,  # paper: one network
        description="One network per stream and one for all.",
    )
    compile: bool = Field(
        False,  # ours
        description="Use torch.compile; the first steps are slow.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _follow_recipe(cls, values: dict[str, Any], validate: Callable[[Any], Self]) -> Self:
        """Take values that are not given from the recipe; `model_fields_set` stays as given."""
        recipe = values.get("recipe", DEFAULT_RECIPE)
        settings = validate({**RECIPES.get(recipe, {}), **cls.overrides, **values})
        settings.model_fields_set.intersection_update(values)
        return settings

    def is_given(self, name: str) -> bool:
        """Whether a value was asked for, rather than left to the recipe."""
        return name in self.model_fields_set

    @classmethod
    def default(cls, name: str) -> Any:
        """Return the default of a field under the default recipe."""
        defaults = {**RECIPES[DEFAULT_RECIPE], **cls.overrides}
        return defaults.get(name, super().default(name))

    def recipe_value(self, name: str) -> Any:
        """Return the default of a field under the recipe of these settings."""
        return RECIPES[self.recipe].get(name, super().default(name))

    def recipe_deviations(self) -> list[str]:
        """Return the names of the learning settings that deviate from the recipe."""
        free = {"recipe", "protocol", "seed", "hold_out", "select_epoch", "compile"}
        free |= {"layers", "channels", "branches"}
        for other in (BudgetSettings, ClipSettings, WorkSettings, BatchSettings):
            free |= set(other.model_fields)
        learning = [name for name in type(self).model_fields if name not in free]
        return sorted(name for name in learning if getattr(self, name) != self.recipe_value(name))
