"""Settings of `skelnas train`, and the recipes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from skelnas.config.clips import AugmentSettings, ClipSettings
from skelnas.config.machine import BatchSettings, DeviceSettings, WorkSettings

Recipe = Literal["paper", "strong"]
BaselineName = Literal["hcn", "st-gcn", "temporal-conv"]

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
"""What a recipe has for a setting in place of the field's own default, which is the paper's."""

DEFAULT_RECIPE: Recipe = "strong"
"""What is learned by if nothing is said (ours, for the ablation in docs/results.md)."""


class TrainSettings(ClipSettings, AugmentSettings, WorkSettings, BatchSettings):
    """Settings of `skelnas train`."""

    group = "Training"
    changeable = frozenset({"rank_timeout"})

    recipe: Recipe = Field(
        DEFAULT_RECIPE,
        description="what all settings are that are not given: 'strong', with what has become "
        "usual since (ours), or 'paper', as SAR-NAS was trained, which is what stands in "
        "parentheses",
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
    branches: bool = Field(
        False,
        description="a network for each of --streams and one for all of them, which learn side by "
        "side and whose logits are averaged (paper: one network)",
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
        chosen = values.get("recipe", DEFAULT_RECIPE)
        return {**RECIPES.get(chosen, {}), **values}

    @classmethod
    def initial(cls, name: str) -> Any:
        """Return what a field is where nothing is said, for the help."""
        return RECIPES[DEFAULT_RECIPE].get(name, super().initial(name))

    def by_recipe(self, name: str) -> Any:
        """Return what a setting is in the recipe."""
        return RECIPES[self.recipe].get(name, super().initial(name))

    def beside_recipe(self) -> list[str]:
        """Name the settings of how it learns that are not as in the recipe."""
        free = {"recipe", "protocol", "seed", "hold_out", "select_epoch", "compile"}
        free |= {"layers", "channels", "branches"}
        for other in (ClipSettings, DeviceSettings, BatchSettings):
            free |= set(other.model_fields)
        learning = [name for name in type(self).model_fields if name not in free]
        return sorted(name for name in learning if getattr(self, name) != self.by_recipe(name))
