"""How far is each AdaBelief from the paper's formula? Measured against 50 digits; printed as Markdown tables."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata

import numpy as np
from peer_arithmetic import arithmetic
from peer_behaviour import CALM, behaviour
from peer_packages import HYPER, Array, Runner, numpy_dtype, runners
from tqdm import tqdm

from adabelief_core.parity import paper

DTYPES = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
"""Each dtype's bits after the point."""
SHOWN = (1, 10, 100, 1000)
PACKAGES = ("adabelief", "adabelief-pytorch", "optax", "timm", "pytorch_optimizer", "torch", "jax", "numpy")


@dataclass(frozen=True)
class Deviation:
    """How far parameters are from the exact ones after some step."""

    ulps: float
    """The largest error, in units of the last place of the larger of where the parameter began and should be."""
    relative: float
    """The largest error over the largest distance that a parameter should have moved by then."""
    nan: int
    """Parameters that are not finite; the others alone count above."""
    stuck: int
    """Parameters that no step has moved, though they should be an ulp or more from where they began."""


@dataclass(frozen=True)
class Problem:
    """One set of gradients and the exact parameters they lead to.

    `start` has magnitudes in [1, 2)/64, so that a usual step (lr 1e-3) is about 2 ulps of bfloat16. Gradients are
    standard normal, and 0 throughout for the last eighth, as those of a pixel that is never lit. All are rounded to
    the dtype first.
    """

    dtype: str
    start: Array
    grads: Sequence[Array]
    exact: dict[int, list[Decimal]]

    @classmethod
    def draw(cls, dtype: str, steps: int, elements: int) -> Problem:
        """The same numbers for every dtype, but for that rounding."""
        rng = np.random.default_rng(0)
        start = rng.uniform(1, 2, elements) * rng.choice([-1, 1], elements) / 64
        drawn = rng.standard_normal((steps, elements))
        drawn[:, elements - elements // 8 :] = 0
        start, drawn = (x.astype(numpy_dtype(dtype)).astype(np.float64) for x in (start, drawn))
        paths = [paper(float(p), map(float, gs), **HYPER) for p, gs in zip(start, drawn.T, strict=True)]
        return cls(dtype, start, list(drawn), {t: [path[t - 1] for path in paths] for t in SHOWN if t <= steps})

    def deviations(self, run: Runner) -> Iterator[tuple[int, Deviation]]:
        """The deviation of a runner at each step that is shown."""
        still = np.ones(len(self.start), bool)
        for t, p in enumerate(run(self.start, self.grads, self.dtype), 1):
            still &= p == self.start
            if t in self.exact:
                yield t, self.deviation(p, self.exact[t], still)

    def deviation(self, p: Array, exact: Sequence[Decimal], still: Array) -> Deviation:
        """Compare the parameters of one step; `still` are those that no step has moved."""
        finite = np.isfinite(p)
        pairs = zip(p, exact, finite, strict=True)
        errors = np.array([float(abs(Decimal(x) - y)) if ok else 0.0 for x, y, ok in pairs])
        rounded = np.array([float(x) for x in exact])
        moved = np.abs(rounded - self.start)
        exponent = np.floor(np.log2(np.maximum(np.abs(rounded), np.abs(self.start))))
        ulps = 2.0 ** (exponent - DTYPES[self.dtype])
        stuck = still & (moved >= ulps)
        return Deviation((errors / ulps).max(), errors.max() / moved.max(), int((~finite).sum()), int(stuck.sum()))


def bound(t: int) -> float:
    """What we promise in float32 and float64 on this problem, in ulps: an ulp a step, half of it for rounding the
    parameter and as much for the step, which is the smaller one, and one more for the start.
    """
    return 1.0 + t


def measure(steps: int, elements: int) -> Iterator[tuple[str, str, dict[int, Deviation] | str]]:
    """(dtype, optimizer, step to deviation), or what the optimizer raised in place of the last."""
    for dtype in DTYPES:
        problem = Problem.draw(dtype, steps, elements)
        for label, run in runners(dtype).items():
            try:
                yield dtype, label, dict(problem.deviations(run))
            except (RuntimeError, TypeError, ValueError) as error:
                yield dtype, label, f"{type(error).__name__}: {error}"


def cells(found: dict[int, Deviation] | str, steps: int, elements: int) -> list[str]:
    """A row's cells: one a step, and a remark."""
    shown = [t for t in SHOWN if t <= steps]
    if isinstance(found, str):
        return ["-"] * len(shown) + [found]
    row = [f"{found[t].ulps:.2g}; {found[t].relative:.1e}" for t in shown]
    last = found[shown[-1]]
    remarks = [f"NaN: {last.nan} of {elements}"] * bool(last.nan) + [f"stuck: {last.stuck}"] * bool(last.stuck)
    return [*row, ", ".join(remarks)]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def at_least(least: int) -> Callable[[str], int]:
    """For argparse: an integer of this size or more."""

    def integer(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} (expected an integer >= {least})")
        return int(text)

    return integer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=at_least(1), default=SHOWN[-1], help="steps to take (default: %(default)s)")
    parser.add_argument("--elements", type=at_least(8), default=64, help="parameters (default: %(default)s)")
    options = parser.parse_args()
    total = sum(len(runners(dtype)) for dtype in DTYPES)
    rows = [
        [dtype, label, *cells(found, options.steps, options.elements)]
        for dtype, label, found in tqdm(measure(options.steps, options.elements), total=total, unit="optimizer")
    ]
    shown = [f"t = {t}" for t in SHOWN if t <= options.steps]
    print("\n## Deviation from the paper's formula: ulps; relative to the distance to move\n")
    print(markdown(["dtype", "optimizer", *shown, ""], rows))
    print("\n## The frameworks' own arithmetic\n")
    print(markdown(*arithmetic()))
    print("\n## Behaviour\n")
    print(markdown(*behaviour()))
    print(f"\n'bfloat16 s, calm': s after one gradient of 1 and {CALM:,} of 0, over what float64 has then.")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    print(f"\nMeasured with {versions}, Python {platform.python_version()}, {platform.machine()}.")


if __name__ == "__main__":
    main()
