"""Every optimizer on a landscape at every learning rate of the grid, and the best of each."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from examples.harness import RIVALS, Settings, commit, versions
from examples.landscapes.functions import LANDSCAPES, Landscape

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""The learning rates of every optimizer."""
STEPS = 500
NEAR = 1e-3
"""The share of the first value below which an optimizer has arrived."""
ROUNDING = 1e-16
"""Values below this are a matter of rounding, and all the same."""


@dataclass(frozen=True)
class Trajectory:
    """One optimizer, one learning rate, one landscape.

    Args:
        landscape: A key of `LANDSCAPES`.
        optimizer: A key of `RIVALS`.
        lr: Learning rate.
        points: The start and where each step led, float64, shape (steps + 1, d); NaN once it has diverged.
        losses: The values there, shape (steps + 1,).
    """

    landscape: str
    optimizer: str
    lr: float
    points: np.ndarray
    losses: np.ndarray

    @property
    def loss(self) -> float:
        """The mean value over the last tenth of the steps, or infinity: a lucky last step counts for little."""
        mean = float(self.losses[-max(1, len(self.losses) // 10) :].mean())
        return mean if math.isfinite(mean) else math.inf

    @property
    def distance(self) -> float:
        """From the last point to the minimum."""
        last = float(np.linalg.norm(self.points[-1] - LANDSCAPES[self.landscape].minimum))
        return last if math.isfinite(last) else math.inf

    @property
    def arrival(self) -> int | None:
        """The step from which on all values are below `NEAR` of the first; None: no such step."""
        outside = np.flatnonzero(~(self.losses <= NEAR * self.losses[0]))
        return int(outside[-1]) + 1 if outside[-1] + 1 < len(self.losses) else None

    @property
    def rank(self) -> tuple[float, float]:
        """What trajectories are compared by, less is better: `loss` to four digits, then `arrival`."""
        return max(float(f"{self.loss:.4g}"), ROUNDING), math.inf if self.arrival is None else self.arrival


def follow(landscape: Landscape, optimizer: str, lr: float, settings: Settings) -> Trajectory:
    """Take `settings.epochs` steps from the landscape's start, in float64, with exact gradients."""
    p = torch.nn.Parameter(torch.tensor(landscape.start, dtype=torch.float64))
    stepper = RIVALS[optimizer].make([p], lr, settings)
    points = np.full((settings.epochs + 1, len(landscape.start)), np.nan)
    points[0] = landscape.start
    for t in range(1, settings.epochs + 1):
        stepper.zero_grad()
        landscape.f(p).backward()
        if not p.grad.isfinite().all():
            break
        stepper.step()
        points[t] = p.detach().numpy()
    with torch.no_grad():
        losses = landscape.f(torch.from_numpy(points)).numpy()
    return Trajectory(landscape.name, optimizer, lr, points, losses)


def every(landscape: Landscape, optimizers: Sequence[str], grid: Sequence[float], settings: Settings) -> Iterator:
    """All trajectories on a landscape."""
    for optimizer in optimizers:
        for lr in grid:
            yield follow(landscape, optimizer, lr, settings)


def best(found: Sequence[Trajectory]) -> list[Trajectory]:
    """The best trajectory of each optimizer on one landscape, from the best to the worst by `rank`."""
    chosen: dict[str, Trajectory] = {}
    for path in found:
        if path.optimizer not in chosen or path.rank < chosen[path.optimizer].rank:
            chosen[path.optimizer] = path
    return sorted(chosen.values(), key=lambda path: path.rank)


def provenance(settings: Settings) -> dict[str, str]:
    """Commit, versions and settings."""
    told = {name: value for name, value in asdict(settings).items() if value}
    return {"commit": commit(), **versions(), "settings": json.dumps(told)}


def write_csv(path: Path, found: Sequence[Trajectory], origin: Mapping[str, str]) -> None:
    """A line for each trajectory; `chosen` is 1 for the best of an optimizer on a landscape."""
    chosen = {
        id(winner)
        for name in {path.landscape for path in found}
        for winner in best([path for path in found if path.landscape == name])
    }
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = ("landscape", "optimizer", "lr", "loss", "distance", "arrival", "chosen")
        writer.writerow([*columns, "start", "minimum", *origin])
        for each in found:
            landscape = LANDSCAPES[each.landscape]
            ends = [f"{x:.6g}" for x in (each.lr, each.loss, each.distance)]
            place = [each.arrival, int(id(each) in chosen), landscape.start, landscape.minimum]
            writer.writerow([each.landscape, each.optimizer, *ends, *place, *origin.values()])
