"""AdaBelief and its rivals, each from its own package, with that package's defaults except where stated here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytorch_optimizer
import torch

from adabelief_torch import AdaBelief
from examples.harness._experiment import Settings

# Half-decades, five for each: around 1e-3 where that is the usual rate, a decade higher where the usual rate is.
USUAL = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
HIGHER = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
HIGHEST = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)


@dataclass(frozen=True)
class Rival:
    """An optimizer that takes part.

    Args:
        name: Its name on the command line.
        label: Its name in figures and tables.
        keywords: `(lr, settings)` to the class's keyword arguments, weight decay aside.
        build: The class.
        grid: Learning rates to choose from; the middle one is the usual one.
        decay: The way of its weight decay: "coupled" (added to the gradient), "decoupled", or "settings".
    """

    name: str
    label: str
    build: Callable[..., torch.optim.Optimizer]
    keywords: Callable[[Settings], dict[str, Any]]
    grid: tuple[float, ...]
    decay: str

    @property
    def lr(self) -> float:
        """The usual learning rate: the middle of the grid."""
        return self.grid[len(self.grid) // 2]

    def make(
        self, params: Iterable[torch.nn.Parameter], lr: float, settings: Settings, **kw: Any
    ) -> torch.optim.Optimizer:
        """Build the optimizer.

        Args:
            params: As for any `torch.optim.Optimizer`.
            lr: Learning rate.
            settings: Weight decay, betas, and this optimizer's `overrides`.
            **kw: Further keywords of the class; they come last.
        """
        keywords = {"lr": lr, "weight_decay": settings.weight_decay, **self.keywords(settings)}
        return self.build(params, **{**keywords, **settings.overrides.get(self.name, {}), **kw})


def betas(settings: Settings) -> dict[str, Any]:
    return {"betas": tuple(settings.betas)}


RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival(
            "adabelief",
            "AdaBelief",
            AdaBelief,
            lambda s: {"betas": tuple(s.betas), "weight_decouple": s.decoupled},
            USUAL,
            "settings",
        ),
        Rival("sgd", "SGD, momentum", torch.optim.SGD, lambda s: {"momentum": s.betas[0]}, HIGHEST, "coupled"),
        Rival("adam", "Adam", torch.optim.Adam, betas, USUAL, "coupled"),
        Rival("adamw", "AdamW", torch.optim.AdamW, betas, USUAL, "decoupled"),
        Rival("radam", "RAdam", torch.optim.RAdam, betas, USUAL, "coupled"),
        Rival("adafactor", "Adafactor", torch.optim.Adafactor, lambda s: {}, HIGHER, "decoupled"),
        Rival("adabound", "AdaBound", pytorch_optimizer.AdaBound, betas, USUAL, "decoupled"),
        # The third beta, of the learning rates' mean: that mean starts at 0, and with the package's 0.9999 would still
        # be there when a short run ends.
        Rival(
            "adamod",
            "AdaMod",
            pytorch_optimizer.AdaMod,
            lambda s: {"betas": (*s.betas, 0.999)},
            HIGHER,
            "decoupled",
        ),
        Rival("yogi", "Yogi", pytorch_optimizer.Yogi, betas, HIGHER, "decoupled"),
    )
}
