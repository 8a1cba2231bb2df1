"""The figure of an experiment, made from nothing but its CSV."""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples.harness._results import VERSIONS, Group, groups
from examples.harness.optimizers import RIVALS

# Colours by optimizer, the same in every figure; all lines are of one width.
COLORS = dict(zip(RIVALS, mpl.color_sequences["tab10"], strict=False))


def draw(lines: list[dict[str, str]], path: Path, title: str) -> None:
    """Draw a CSV: curves and results of the tuned comparison, or the sweep of eps.

    Args:
        lines: What `read_csv` gave.
        path: The PNG.
        title: The figure's title.
    """
    sweep = lines[0]["phase"] == "eps"
    found = groups(lines, "eps" if sweep else "final")
    variants = list(dict.fromkeys(group.variant for group in found))
    figure = Figure(figsize=(11, 1.6 + 3.2 * len(variants)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(variants), 1 if sweep else 2, squeeze=False)
    metric, better = lines[0]["metric"], lines[0]["better"]
    for row, variant in zip(axes, variants, strict=True):
        own = [group for group in found if group.variant == variant]
        if sweep:
            draw_sweep(row[0], own)
            row[0].set(title=f"{variant}, lr {own[0].lr}", xlabel="eps = eps_root", ylabel=metric)
        else:
            draw_curves(row[0], own, log=better == "lower")
            row[0].set(title=variant, xlabel="epoch", ylabel=metric)
            draw_results(row[1], own)
            row[1].set(title=f"{variant}: after the last epoch, best on top", xlabel=f"{metric} ({better} is better)")
    figure.suptitle(title)
    note = provenance(lines)
    wrapped = "\n".join(textwrap.fill(line, 190, subsequent_indent="    ") for line in note.splitlines())
    figure.text(0.01, -0.01, wrapped, va="top", fontsize=6, family="monospace")
    figure.savefig(path, dpi=100, bbox_inches="tight", metadata={"Description": note})


def draw_curves(axes, own: list[Group], log: bool) -> None:
    """Mean over the seeds after each epoch, and smallest to largest."""
    for group in own:
        curves = np.array([curve for curve in group.curves if math.isfinite(curve[-1])])
        if not len(curves):
            axes.plot([], [], color=COLORS[group.optimizer], label=f"{group.label} (diverged)")
            continue
        epochs = range(1, curves.shape[1] + 1)
        axes.plot(epochs, curves.mean(0), color=COLORS[group.optimizer], label=group.label)
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=COLORS[group.optimizer], alpha=0.12, linewidth=0)
    if log:
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)


def draw_results(axes, own: list[Group]) -> None:
    """Each seed's result, their mean, smallest to largest; the best optimizer on top."""
    for place, group in enumerate(own):
        color = COLORS[group.optimizer]
        if group.finals:
            axes.plot([min(group.finals), max(group.finals)], [place, place], color=color)
            axes.plot(group.finals, [place] * len(group.finals), ".", color=color)
            axes.plot([group.mean], [place], "|", color=color, markersize=14)
    names = [
        f"{group.label}, lr {group.lr}"
        + (f", {group.diverged} of {len(group.curves)} diverged" if group.diverged else "")
        for group in own
    ]
    axes.set_yticks(range(len(own)), names, fontsize=8)
    axes.invert_yaxis()
    ends = [end for group in own for end in group.finals]
    if ends and max(ends) > 10 * min(ends) > 0:
        axes.set_xscale("log")
    axes.grid(alpha=0.3)


def draw_sweep(axes, own: list[Group]) -> None:
    """Mean over the seeds at each eps, smallest to largest, and a cross where runs diverged."""
    own = sorted(own, key=lambda group: float(group.eps))
    good = [group for group in own if group.finals]
    eps = [float(group.eps) for group in good]
    color = COLORS["adabelief"]
    axes.plot(eps, [group.mean for group in good], ".-", color=color, label="mean")
    low, high = [min(group.finals) for group in good], [max(group.finals) for group in good]
    axes.fill_between(eps, low, high, color=color, alpha=0.2, linewidth=0, label="smallest to largest")
    for group in own:
        if group.diverged:
            axes.axvline(float(group.eps), color="tab:red", linestyle=":", label="diverged runs")
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys(), fontsize=7)
    axes.set_xscale("log")
    axes.grid(alpha=0.3)


def provenance(lines: list[dict[str, str]]) -> str:
    """Commit, versions, budget and settings of a CSV, as text."""
    text = []
    for name in VERSIONS:
        text.append(f"{name} {', '.join(sorted({line[name] for line in lines}))}")
    runs = {tuple(line[name] for name in ("phase", "variant", "optimizer", "lr", "eps", "seed")) for line in lines}
    budget = Counter(run[:3] for run in runs)
    counts = {phase: sorted({n for key, n in budget.items() if key[0] == phase}) for phase, *_ in budget}
    told = ", ".join(f"{'/'.join(map(str, n))} {phase} runs" for phase, n in counts.items())
    text.append(f"data {lines[0]['dataset']}; of each optimizer and variant {told}")
    notes = [" | ".join(text)]
    settings = {line["variant"]: line["settings"] for line in lines}
    notes += [f"{variant}: {json.dumps(json.loads(value))}" for variant, value in settings.items()]
    return "\n".join(notes)
