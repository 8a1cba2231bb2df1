"""What an experiment tells the harness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

MakeOptimizer = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]


class DataError(ValueError):
    """A local dataset is not what was expected; the message says what was. Ends the command without a traceback."""


@dataclass(frozen=True)
class Settings:
    """The settings of one variant, the same for every optimizer. All of it must be JSON.

    Args:
        epochs: Epochs (or rows of as many iterations as the experiment says).
        batch_size: Examples a step.
        weight_decay: Weight decay of every optimizer, in the way of each (`Rival.decay`).
        decoupled: The way of AdaBelief's weight decay.
        betas: The betas of all that have them; the first is also the momentum of SGD.
        milestones: Epochs after which the learning rate is divided by 10.
        overrides: Optimizer to keywords in which it differs from the above: `{"adabelief": {"eps": 1e-8}}`.
        extra: What one experiment needs besides.
    """

    epochs: int
    batch_size: int
    weight_decay: float = 0.0
    decoupled: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    milestones: tuple[int, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One experiment: its variants, what is measured, and the training.

    Args:
        name: The package's name in examples/.
        title: The figure's title.
        variants: Networks, usually.
        metric: The measure on test data: the figure's y axis, and what is compared after the last epoch.
        better: Whether "lower" or "higher" values of `metric` and `tuned_on` are better.
        tuned_on: The measure on validation data that chooses the learning rate.
        settings: Variant to settings, on the default data.
        train: Trains once, see HARNESS in the package's text; a function of a module, so that workers find it.
        datasets: Names for `--dataset`; the first is the default data, the others need a folder.
        paper: Dataset to variant to the paper's settings, for `--paper`.
        rates: What all grids of learning rates are multiplied by: short trainings need larger ones.
        smoke: Fields of `Settings` that `--smoke` replaces (`extra` and `overrides` are merged).
    """

    name: str
    title: str
    variants: tuple[str, ...]
    metric: str
    better: Literal["lower", "higher"]
    tuned_on: str
    settings: Mapping[str, Settings]
    train: Callable[[str, MakeOptimizer, int, Settings, Path | None, str], Iterator[dict[str, float]]]
    datasets: tuple[str, ...] = ("default",)
    paper: Mapping[str, Mapping[str, Settings]] = field(default_factory=dict)
    rates: float = 1.0
    smoke: Mapping[str, Any] = field(default_factory=lambda: {"epochs": 1, "milestones": ()})

    def grid(self, rates: Iterable[float]) -> tuple[float, ...]:
        """Learning rates of an optimizer, times `rates`, in few digits."""
        return tuple(float(f"{rate * self.rates:g}") for rate in rates)
