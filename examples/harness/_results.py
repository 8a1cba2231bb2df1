"""The CSV of an experiment, and the tables made from nothing but it."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.harness._experiment import Experiment
from examples.harness._runs import Run, Store, diverged
from examples.harness.optimizers import RIVALS

VERSIONS = ("commit", "adabelief", "torch", "numpy", "pytorch_optimizer", "python")


def write_csv(path: Path, experiment: Experiment, store: Store, runs: list[tuple[str, Run]]) -> None:
    """One line an epoch of every run. A run that diverged has the epochs that it gave, and `diverged` 1."""
    lines: list[dict[str, Any]] = []
    for phase, run in runs:
        record = store.read(run)
        settings = {name: value for name, value in asdict(run.settings).items() if value}
        for epoch, row in enumerate(record["rows"], 1):
            lines.append(
                {
                    "experiment": experiment.name,
                    "dataset": run.dataset,
                    "phase": phase,
                    "variant": run.variant,
                    "optimizer": run.optimizer,
                    "lr": f"{run.lr:g}",
                    "eps": "" if run.eps is None else f"{run.eps:g}",
                    "seed": run.seed,
                    "epoch": epoch,
                    **{name: f"{value:.6g}" for name, value in row.items()},
                    "diverged": int(diverged(record["rows"])),
                    "metric": experiment.metric,
                    "better": experiment.better,
                    "settings": json.dumps(settings, separators=(",", ":")),
                    **{name: record[name] for name in VERSIONS},
                }
            )
    names = list(dict.fromkeys(name for line in lines for name in line))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines that `write_csv` wrote."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True)
class Group:
    """The runs that differ in nothing but their seed.

    Args:
        variant, optimizer, lr, eps: What they share, as in the CSV.
        curves: The metric after each epoch, a list a seed.
        diverged: How many of them diverged.
    """

    variant: str
    optimizer: str
    lr: str
    eps: str
    curves: tuple[tuple[float, ...], ...]
    diverged: int

    @property
    def finals(self) -> list[float]:
        """The metric after the last epoch, of the runs that did not diverge."""
        return [curve[-1] for curve in self.curves if math.isfinite(curve[-1])]

    @property
    def mean(self) -> float:
        """Mean of `finals`; NaN if there are none."""
        return sum(self.finals) / len(self.finals) if self.finals else math.nan

    @property
    def label(self) -> str:
        """The optimizer's name in figures."""
        return RIVALS[self.optimizer].label


def groups(lines: list[dict[str, str]], *phases: str) -> list[Group]:
    """The groups of these phases, those of each variant from the best to the worst.

    One with a run that diverged comes after all with fewer, whatever the others' mean.
    """
    keys = ("variant", "optimizer", "lr", "eps")
    curves: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    bad: dict[tuple, set[str]] = defaultdict(set)
    for line in lines:
        if line["phase"] in phases:
            key = tuple(line[name] for name in keys)
            # What a diverged run's metric still says is no result.
            value = math.nan if line["diverged"] == "1" else float(line[line["metric"]])
            curves[key][line["seed"]].append(value)
            if line["diverged"] == "1":
                bad[key].add(line["seed"])
    found = [
        Group(*key, curves=tuple(map(tuple, seeds.values())), diverged=len(bad[key])) for key, seeds in curves.items()
    ]
    variants = list(dict.fromkeys(group.variant for group in found))
    return sorted(found, key=lambda group: (variants.index(group.variant), *badness(group, lines[0]["better"])))


def badness(group: Group, better: str) -> tuple[int, float]:
    """What groups are ranked by: the mean in the table's digits; less is better, and the same is a tie."""
    sign = -1 if better == "higher" else 1
    return group.diverged, sign * float(f"{group.mean:.4g}") if group.finals else math.inf


def rank(group: Group, found: list[Group], better: str) -> int:
    """1 + the number of groups that are better."""
    return 1 + sum(badness(other, better) < badness(group, better) for other in found)


def spread(group: Group) -> tuple[str, str]:
    """Mean, and smallest to largest, as text."""
    if not group.finals:
        return "diverged", ""
    return f"{group.mean:.4g}", f"{min(group.finals):.4g} … {max(group.finals):.4g}"


def table(lines: list[dict[str, str]]) -> str:
    """The table of a CSV: of the tuned comparison, or of the sweep of eps. Markdown."""
    return sweep_table(lines) if lines[0]["phase"] == "eps" else rank_table(lines)


def rank_table(lines: list[dict[str, str]]) -> str:
    """Optimizers from the best to the worst, for each variant."""
    grids = defaultdict(set)
    for line in lines:
        if line["phase"] == "tuning":
            grids[line["variant"], line["optimizer"]].add(float(line["lr"]))
    metric, better = lines[0]["metric"], lines[0]["better"]
    text = [f"| variant | rank | optimizer | lr | mean {metric} | min … max | runs | diverged |", "|---" * 8 + "|"]
    place: dict[str, list[Group]] = defaultdict(list)
    for group in groups(lines, "final"):
        place[group.variant].append(group)
    for group in (group for own in place.values() for group in own):
        grid = grids[group.variant, group.optimizer]
        edge = " (edge of its grid)" if grid and float(group.lr) in (min(grid), max(grid)) else ""
        number, mean, ends = rank(group, place[group.variant], better), *spread(group)
        text.append(
            f"| {group.variant} | {number} | {group.label} | {group.lr}{edge} | {mean} | {ends} "
            f"| {len(group.curves)} | {group.diverged or ''} |"
        )
    text += ["", f"{better.capitalize()} is better. After the last epoch, on test data.", ""]
    text += [f"- {variant}: {verdict(found, better)}" for variant, found in place.items()]
    return "\n".join(text)


def verdict(found: list[Group], better: str) -> str:
    """Where AdaBelief stands among the groups of one variant, in a sentence."""
    ours = next((group for group in found if group.optimizer == "adabelief"), None)
    others = [group for group in found if group is not ours]
    if ours is None or not others:
        return "AdaBelief was not compared."
    place, other = rank(ours, found, better), others[0]
    ties = sum(badness(group, better) == badness(ours, better) for group in others)
    text = f"AdaBelief is {place} of {len(found)}" + (f", with {ties} others as good" if ties else "")
    if not (ours.finals and other.finals):
        return f"{text}."
    apart = max(ours.finals) < min(other.finals) or max(other.finals) < min(ours.finals)
    return (
        f"{text} (mean {ours.mean:.4g}; the best other: {other.label}, {other.mean:.4g}); "
        f"the two ranges {'do not overlap' if apart else 'overlap'}."
    )


def sweep_table(lines: list[dict[str, str]]) -> str:
    """Means for each eps and variant."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    rates = {}
    for group in sorted(groups(lines, "eps"), key=lambda group: float(group.eps)):
        mean, ends = spread(group)
        note = f", {group.diverged} of {len(group.curves)} diverged" if group.diverged else ""
        cells[group.eps][group.variant] = f"{mean} ({ends}{note})" if ends else mean
        rates[group.variant] = group.lr
    variants = list(dict.fromkeys(line["variant"] for line in lines))
    text = [
        f"| eps | {' | '.join(f'{name}, lr {rates[name]}' for name in variants)} |",
        "|---" * (len(variants) + 1) + "|",
    ]
    text += [
        f"| {float(eps):.0e} | {' | '.join(row.get(name, '') for name in variants)} |" for eps, row in cells.items()
    ]
    metric, better = lines[0]["metric"], lines[0]["better"]
    return "\n".join([*text, "", f"Mean {metric} (min … max) after the last epoch; {better} is better."])
