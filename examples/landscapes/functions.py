"""The landscapes: each a function of a point, where it starts, and its minimum, whose value is 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

Point = tuple[float, ...]


@dataclass(frozen=True)
class Landscape:
    """A function of one or two variables.

    Args:
        name: Its name on the command line and of its files.
        formula: What the figure's title says.
        f: From points, shape (..., d), to values, shape (...), by operations that autograd knows.
        start: Where every optimizer starts, d numbers.
        minimum: Where the value is 0, and nowhere less.
        box: The part that is drawn: (from, to) for each variable.
    """

    name: str
    formula: str
    f: Callable[[torch.Tensor], torch.Tensor]
    start: Point
    minimum: Point
    box: tuple[tuple[float, float], ...]


def absolute(point: torch.Tensor) -> torch.Tensor:
    x, y = point.unbind(-1)
    return x.abs() + y.abs()


def slanted(point: torch.Tensor) -> torch.Tensor:
    x, y = point.unbind(-1)
    return (x + y).abs() + (x - y).abs() / 10


def quadratic(point: torch.Tensor) -> torch.Tensor:
    x, y = point.unbind(-1)
    return (x + y).square() + (x - y).square() / 10


def beale(point: torch.Tensor) -> torch.Tensor:
    x, y = point.unbind(-1)
    return sum((c - x + x * y**power).square() for power, c in enumerate((1.5, 2.25, 2.625), 1))


def rosenbrock(point: torch.Tensor) -> torch.Tensor:
    x, y = point.unbind(-1)
    return (1 - x).square() + 100 * (y - x.square()).square()


def rastrigin(point: torch.Tensor) -> torch.Tensor:
    return (10 + point.square() - 10 * (2 * math.pi * point).cos()).sum(-1)


def valley(point: torch.Tensor) -> torch.Tensor:
    """Walls of slope 10, and a bend of width 1 between them: far out the gradient is large, the curvature small."""
    (x,) = point.unbind(-1)
    return 10 * ((1 + x.square()).sqrt() - 1)


# The starts of Beale's and Rosenbrock's functions are the usual ones: Moré, Garbow and Hillstrom, Testing
# Unconstrained Optimization Software, ACM Transactions on Mathematical Software 7 (1981). The others are our own.
LANDSCAPES: dict[str, Landscape] = {
    landscape.name: landscape
    for landscape in (
        Landscape("absolute", "|x| + |y|", absolute, (-1.5, 2.2), (0.0, 0.0), ((-2.5, 2.5), (-2.5, 2.5))),
        Landscape("slanted", "|x + y| + |x - y|/10", slanted, (-1.5, 2.2), (0.0, 0.0), ((-2.5, 2.5), (-2.5, 2.5))),
        Landscape(
            "quadratic", "(x + y)² + (x - y)²/10", quadratic, (-1.5, 2.2), (0.0, 0.0), ((-2.5, 2.5), (-2.5, 2.5))
        ),
        Landscape("beale", "Beale", beale, (1.0, 1.0), (3.0, 0.5), ((-0.5, 4.0), (-1.5, 1.8))),
        Landscape("rosenbrock", "Rosenbrock", rosenbrock, (-1.2, 1.0), (1.0, 1.0), ((-2.0, 2.0), (-0.8, 2.5))),
        Landscape("rastrigin", "Rastrigin", rastrigin, (-2.3, 3.4), (0.0, 0.0), ((-4.0, 4.0), (-4.0, 4.5))),
        Landscape("valley", "10(√(1 + x²) - 1)", valley, (-20.0,), (0.0,), ((-25.0, 15.0),)),
    )
}
