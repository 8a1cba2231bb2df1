"""The pictures: one PNG a landscape, and an animation of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples.harness import COLORS, RIVALS
from examples.landscapes.functions import LANDSCAPES, Landscape
from examples.landscapes.trajectories import ROUNDING, Trajectory


def label(path: Trajectory) -> str:
    """The optimizer's name and learning rate."""
    return f"{RIVALS[path.optimizer].label}, lr {path.lr:g}"


def draw(paths: Sequence[Trajectory], file: Path, origin: Mapping[str, str]) -> None:
    """The paths of one landscape's `best`, and their values after each step."""
    landscape = LANDSCAPES[paths[0].landscape]
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    background(left, landscape, steps=len(paths[0].losses) - 1)
    for path in reversed(paths):  # the best on top
        left.plot(*coordinates(path), color=COLORS[path.optimizer], linewidth=1.2)
        right.plot(np.maximum(path.losses, ROUNDING), color=COLORS[path.optimizer], linewidth=1.2)
    for path in paths:
        right.plot([], [], color=COLORS[path.optimizer], label=label(path))
    right.set(yscale="log", xlabel="step", title=f"value (minimum: 0; below {ROUNDING:g} drawn there)")
    right.set_ylim(top=20 * paths[0].losses[0])
    right.grid(alpha=0.3)
    right.legend(title="best on top", fontsize=7, title_fontsize=7)
    figure.suptitle(f"{landscape.formula}, each optimizer at its best learning rate")
    note = " | ".join(f"{name} {value}" for name, value in origin.items())
    figure.text(0.01, -0.01, note, va="top", fontsize=4.5, family="monospace")
    figure.savefig(file, dpi=90, bbox_inches="tight", metadata={"Description": note})


def coordinates(path: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn of a path: (x, y), or (step, x) where there is one variable."""
    if path.points.shape[1] == 1:
        return np.arange(len(path.points)), path.points[:, 0]
    return path.points[:, 0], path.points[:, 1]


def background(axes, landscape: Landscape, steps: int) -> None:
    """Contours, start and minimum; with one variable, x over the steps."""
    if len(landscape.box) == 1:
        axes.axhline(landscape.minimum[0], color="black", linewidth=0.7)
        axes.set(xlim=(0, steps), ylim=landscape.box[0], xlabel="step", ylabel="x (minimum: line)")
        return
    x, y = (np.linspace(*side, 161) for side in landscape.box)
    grid = np.stack(np.meshgrid(x, y), -1)
    z = landscape.f(torch.from_numpy(grid)).numpy()
    levels = np.geomspace(max(z.min(), 1e-2 * np.median(z)), z.max(), 14)
    axes.contour(x, y, z, levels=levels, colors="0.8", linewidths=0.6)
    axes.plot(*landscape.start, "ks", markersize=4)
    axes.plot(*landscape.minimum, "k*", markersize=8)
    axes.set(xlim=landscape.box[0], ylim=landscape.box[1], xlabel="x", ylabel="y")


def animate(chosen: Mapping[str, Sequence[Trajectory]], file: Path, frames: int) -> None:
    """A GIF of all landscapes: the steps up to each frame's, which follow each other ever faster."""
    columns = 4
    rows = -(-(len(chosen) + 1) // columns)
    figure = Figure(figsize=(10, 2.6 * rows), layout="constrained", dpi=72)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    lines = []
    for axes, (name, paths) in zip(panels, chosen.items(), strict=False):
        background(axes, LANDSCAPES[name], steps=len(paths[0].losses) - 1)
        axes.set(xlabel="", ylabel="", title=LANDSCAPES[name].formula)
        axes.tick_params(labelsize=6)
        axes.title.set_fontsize(9)
        for path in reversed(paths):
            color = COLORS[path.optimizer]
            (trail,) = axes.plot([], [], color=color, linewidth=1)
            (head,) = axes.plot([], [], "o", color=color, markersize=4)
            lines.append((trail, head, coordinates(path)))
    for axes in panels[len(chosen) :]:
        axes.axis("off")
    for name in sorted({path.optimizer for paths in chosen.values() for path in paths}, key=list(RIVALS).index):
        panels[-1].plot([], [], color=COLORS[name], label=RIVALS[name].label)
    panels[-1].legend(loc="center")
    figure.suptitle("step 0")
    figure.canvas.draw()
    figure.set_layout_engine("none")  # it would be computed anew for every frame
    steps = max(len(paths[0].losses) for paths in chosen.values()) - 1
    shown = np.unique(np.geomspace(1, steps, frames).round().astype(int))

    def update(step: int) -> list:
        for trail, head, (x, y) in lines:
            trail.set_data(x[: step + 1], y[: step + 1])
            head.set_data([x[step]], [y[step]])
        figure.suptitle(f"step {step}")
        return []

    # The last frame stays for a while.
    animation = FuncAnimation(figure, update, frames=[*shown, *[steps] * (frames // 4)], cache_frame_data=False)
    animation.save(file, writer=PillowWriter(fps=8))
