"""Which runs an experiment consists of, and how a learning rate is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

from examples.harness._experiment import Experiment, Settings
from examples.harness._runs import Run, Store, diverged
from examples.harness.optimizers import RIVALS

EPS = tuple(float(f"1e{exponent}") for exponent in range(-16, -3, 2))
TUNING_SEED = 0


@dataclass(frozen=True)
class Plan:
    """What the command was asked for.

    Args:
        experiment: The experiment.
        settings: Variant to settings.
        optimizers: Keys of `RIVALS`.
        seeds: Number of seeds of the final runs: 1, 2, …; the seed 0 is for tuning alone.
        smoke: One learning rate, so nothing to tune.
        dataset: Name of the data.
        data: Its folder, or None.
    """

    experiment: Experiment
    settings: dict[str, Settings]
    optimizers: tuple[str, ...]
    seeds: int
    smoke: bool
    dataset: str
    data: str | None

    def pairs(self) -> list[tuple[str, str]]:
        """Variants with optimizers."""
        return list(product(self.settings, self.optimizers))

    def tuning(self, variant: str, optimizer: str) -> list[Run]:
        """One run a learning rate of the grid."""
        if self.smoke:
            return []
        return [self.run(variant, optimizer, lr, TUNING_SEED) for lr in self.experiment.grid(RIVALS[optimizer].grid)]

    def final(self, variant: str, optimizer: str, lr: float) -> list[Run]:
        """One run a seed."""
        return [self.run(variant, optimizer, lr, seed) for seed in range(1, self.seeds + 1)]

    def sweep(self, variant: str, lr: float) -> list[Run]:
        """One run of AdaBelief a seed and eps."""
        return [replace(run, eps=eps) for eps in EPS for run in self.final(variant, "adabelief", lr)]

    def run(self, variant: str, optimizer: str, lr: float, seed: int) -> Run:
        """One run."""
        return Run(variant, optimizer, lr, seed, self.settings[variant], self.dataset, self.data)

    def chosen(self, store: Store, variant: str, optimizer: str) -> float:
        """The learning rate of the best tuning run; the optimizer's usual one where there are none.

        The last epoch's validation measure decides; of equals the one nearest to the usual rate. A run that diverged
        is not chosen before one that did not.
        """
        usual = self.experiment.grid((RIVALS[optimizer].lr,))[0]
        sign = -1 if self.experiment.better == "higher" else 1
        middle = math.log(usual)

        def badness(run: Run) -> tuple[float, float]:
            rows = store.read(run)["rows"]
            value = math.inf if diverged(rows) else sign * rows[-1][self.experiment.tuned_on]
            return value, abs(math.log(run.lr) - middle)

        runs = self.tuning(variant, optimizer)
        finished = runs and all(store.path(run).exists() for run in runs)
        return min(runs, key=badness).lr if finished else usual


def tuned(plan: Plan, store: Store, train: Callable[[list[Run]], None]) -> list[tuple[str, Run]]:
    """Tune, then train every seed.

    Args:
        plan: What is asked for.
        store: Where finished runs are.
        train: Trains those of a list that are not finished.

    Returns:
        Every run, with its phase, "tuning" or "final".
    """
    tuning = [run for pair in plan.pairs() for run in plan.tuning(*pair)]
    train(tuning)
    final = [run for pair in plan.pairs() for run in plan.final(*pair, plan.chosen(store, *pair))]
    train(final)
    return [("tuning", run) for run in tuning] + [("final", run) for run in final]


def swept(plan: Plan, store: Store, train: Callable[[list[Run]], None]) -> list[tuple[str, Run]]:
    """Sweep eps of AdaBelief, at the learning rate that tuning chose, or the usual one if it was not tuned.

    Arguments and result are those of `tuned`; the phase is "eps".
    """
    runs = [run for variant in plan.settings for run in plan.sweep(variant, plan.chosen(store, variant, "adabelief"))]
    train(runs)
    return [("eps", run) for run in runs]
