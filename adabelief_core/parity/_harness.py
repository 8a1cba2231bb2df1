"""Run one mode over one problem beside the readable rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adabelief_core.parity._adapter import Mode, State
from adabelief_core.parity._compare import Difference, compare
from adabelief_core.parity._problems import Problem
from adabelief_core.parity._reference import Reference
from adabelief_core.portable import Snapshot


@dataclass(frozen=True)
class Result:
    """What a comparison found."""

    steps: int
    elements: int
    """Parameters (elements) compared at each step."""
    differing: int
    """Most elements, of the parameters or of one moment, that differed at one step."""
    ulps: int
    """Largest difference."""
    first: str
    """Where the first difference stood; empty if there was none."""


def differences(ours: State, theirs: State) -> Iterator[tuple[str, str, Difference]]:
    """Compare each array: "p", "m", … and the parameter's name to how they differ.

    Raises:
        ValueError: The arrays of `ours` have other names, shapes or dtypes than those of `theirs`.
    """
    for kind, expected in vars(theirs).items():
        if expected is None:
            continue
        got = getattr(ours, kind)
        if got is None or got.keys() != expected.keys():
            raise ValueError(f"{kind} has {got and sorted(got)}, expected {sorted(expected)}")
        for name, x in expected.items():
            yield kind, name, compare(got[name], x)


def check(mode: Mode, problem: Problem, *, through: Path | None = None) -> Result:
    """Compare every parameter and moment with the rule's, bit for bit, after every step.

    Args:
        mode: The execution to test.
        problem: Its dtype is one of the mode's.
        through: A file. After each step the run is taken out of its framework, written there, read, and put into a
            new one.

    Raises:
        ValueError: The mode's arrays have other names, shapes or dtypes than the rule's.
    """
    run, reference = mode.start(problem), Reference(problem, rounds_update=mode.rounds_update)
    differing = ulps = 0
    first = ""
    for step, grads in enumerate(problem.grads(), 1):
        run.step(grads)
        if through:
            run.snapshot().save(through)
            run = mode.start(problem)
            run.restore(Snapshot.load(through))
        reference.step(grads)
        here: Counter[str] = Counter()
        for kind, name, difference in differences(run.state(), reference.state()):
            here[kind] += difference.count
            ulps = max(ulps, difference.ulps)
            if difference.count and not first:
                first = f"step {step}, {kind} of {name!r}"
        differing = max(differing, *here.values())
    elements = sum(p.size for p in problem.params().values())
    return Result(problem.steps, elements, differing, ulps, first)
