"""The landscapes: their mathematics, the trajectories, and the commands."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from examples.harness import RIVALS, Settings
from examples.landscapes import blow_up
from examples.landscapes.__main__ import table
from examples.landscapes.functions import LANDSCAPES
from examples.landscapes.trajectories import Trajectory, best, follow

ROOT = Path(__file__).parents[2]


def command(*arguments):
    line = [sys.executable, "-W", "error", "-m", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def value(landscape, point):
    return landscape.f(torch.tensor(point, dtype=torch.float64)).item()


def points(landscape):
    return st.tuples(*(st.floats(low, high) for low, high in landscape.box))


@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES)
def test_the_minimum_is_0_and_nothing_is_less(landscape):
    assert value(landscape, landscape.minimum) == pytest.approx(0, abs=1e-12)

    @given(points(landscape))
    def nothing_is_less(point):
        assert value(landscape, point) >= 0

    nothing_is_less()


@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES)
def test_start_and_minimum_are_drawn_and_apart(landscape):
    for point in (landscape.start, landscape.minimum):
        assert all(low <= x <= high for x, (low, high) in zip(point, landscape.box, strict=True))
    assert value(landscape, landscape.start) > 1


@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES)
def test_gradients_are_those_of_finite_differences(landscape):
    @given(points(landscape))
    def agree(point):
        if landscape.name in ("absolute", "slanted"):  # no derivative on the kinks
            x, y = point
            assume(min(abs(x), abs(y), abs(x + y), abs(x - y)) > 1e-3)
        p = torch.tensor(point, dtype=torch.float64, requires_grad=True)
        landscape.f(p).backward()
        for i, h in enumerate(np.eye(len(point)) * 1e-6):
            slope = (value(landscape, point + h) - value(landscape, point - h)) / 2e-6
            assert p.grad[i].item() == pytest.approx(slope, rel=1e-5, abs=1e-4)

    agree()


# Values by hand, each at a point where a wrong power, sign or factor would show.
@pytest.mark.parametrize(
    ("name", "point", "expected"),
    [
        ("absolute", (1, -2), 3),
        ("slanted", (1, -2), 1.3),
        ("quadratic", (1, -2), 1.9),
        ("beale", (1, 1), 1.5**2 + 2.25**2 + 2.625**2),
        ("beale", (2, -1), 2.5**2 + 2.25**2 + 1.375**2),
        ("rosenbrock", (-1.2, 1), 24.2),
        ("rastrigin", (0.5, 1), 20.25 + 1),
        ("valley", (-(24**0.5),), 40),
    ],
)
def test_values_by_hand(name, point, expected):
    assert value(LANDSCAPES[name], point) == pytest.approx(expected, rel=1e-12)


def test_far_out_the_valley_is_steep_and_hardly_bent():
    p = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(LANDSCAPES["valley"].f(p), p, create_graph=True)
    (bend,) = torch.autograd.grad(slope, p)
    assert abs(slope.item()) > 9.9
    assert 0 < bend.item() < 2e-3


def test_a_trajectory_is_the_optimizer_s():
    """SGD's first step is lr times the gradient; a rate that is too high ends in NaN and an infinite loss."""
    path = follow(LANDSCAPES["quadratic"], "sgd", 0.01, Settings(epochs=3, batch_size=1))
    x, y = -1.5, 2.2
    gradient = np.array([2 * (x + y) + 0.2 * (x - y), 2 * (x + y) - 0.2 * (x - y)])
    np.testing.assert_allclose(path.points[1], np.array([x, y]) - 0.01 * gradient, rtol=1e-12)
    assert path.points.shape == (4, 2)
    assert path.losses[0] == pytest.approx(value(LANDSCAPES["quadratic"], (x, y)))
    diverged = follow(LANDSCAPES["rosenbrock"], "sgd", 1.0, Settings(epochs=30, batch_size=1))
    assert np.isnan(diverged.points[-1]).all()
    assert (diverged.loss, diverged.distance, diverged.arrival) == (np.inf, np.inf, None)


def made(optimizer, lr, losses):
    return Trajectory("valley", optimizer, lr, np.linspace(-20, 0, len(losses))[:, None], np.array(losses))


def test_the_best_rate_of_each_optimizer_best_first():
    paths = [
        made("adabelief", 0.1, [100.0, 5.0, 3.0]),
        made("adabelief", 0.3, [100.0, 0.01, 0.05]),
        made("adam", 0.1, [100.0, 0.2, 0.01]),
        made("adam", 1.0, [100.0, np.nan, np.nan]),
    ]
    assert best(paths) == [paths[2], paths[1]]
    # Below rounding, who arrives first is better.
    late, early = made("adam", 0.1, [100.0, 9.0, 1e-21]), made("adam", 0.3, [100.0, 1e-17, 1e-20])
    assert best([late, early]) == [early]
    assert made("adam", 0.1, [100.0, 12.93440001]).rank == made("sgd", 0.1, [100.0, 12.93440002]).rank
    assert [path.arrival for path in paths] == [None, 1, 2, None]
    assert [path.distance for path in paths] == [0] * 4
    everyone = {name: made(name, 0.1, [100.0, 1.0 + i, 1.0 + i]) for i, name in enumerate(RIVALS)}
    text = table({"valley": best([*everyone.values(), paths[2]])}, 2)
    assert "2 on valley (first: Adam)" in text
    tied = [made(name, 0.1, [100.0, 0.0, 0.0]) for name in RIVALS]
    text = table({"valley": best(tied)}, 2)
    assert f"1 on valley (shared with {', '.join(rival.label for rival in list(RIVALS.values())[1:])})" in text
    assert text.count("**0.0e+00") == len(RIVALS)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("smoke")
    done = command("examples.landscapes", "--smoke", "--out", out, "--only", "rosenbrock,valley")
    assert done.returncode == 0, done.stderr
    return done, out / "landscapes"


def test_the_smoke_run_writes_csv_figures_and_table(smoke):
    done, out = smoke
    with (out / "landscapes.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    pairs = {(line["landscape"], line["optimizer"]) for line in lines}
    assert pairs == {(name, rival) for name in ("rosenbrock", "valley") for rival in RIVALS}
    for line in lines:
        assert line["chosen"] == "1"
        assert line["commit"]
        assert line["torch"] == torch.__version__
        assert json.loads(line["settings"])["epochs"] == 10
    assert {path.name for path in out.iterdir()} == {"landscapes.csv", "landscapes.gif", "rosenbrock.png", "valley.png"}
    with Image.open(out / "rosenbrock.png") as image:
        assert lines[0]["commit"] in image.text["Description"]
    with Image.open(out / "landscapes.gif") as image:
        assert image.n_frames == 3
    for rival in RIVALS.values():
        assert f"| {rival.label} |" in done.stdout


def test_an_unknown_landscape_is_refused(tmp_path):
    done = command("examples.landscapes", "--only", "valley,hill", "--out", tmp_path)
    assert done.returncode == 2
    assert "Invalid --only: 'hill'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_blow_up(tmp_path):
    done = command("examples.landscapes.blow_up", "--smoke", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "landscapes" / "blow_up.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {(line["gradients"], line["update_clip"]) for line in lines} == {
        (case, bound) for case in blow_up.CASES for bound in ("", "1.0")
    }
    with Image.open(tmp_path / "landscapes" / "blow_up.png") as image:
        assert lines[0]["commit"] in image.text["Description"]
    assert "t = 300 |" in done.stdout


def test_steps_grow_without_the_bound_and_do_not_with_it():
    for case in ("constant gradient, 1", "10 + noise, clipped to ±1"):
        free = blow_up.lengths(case, None, 300)
        assert free[299] > free[99] > free[9] > 1.5
        bounded = blow_up.lengths(case, 1.0, 300)
        assert bounded.max() < 2
        assert bounded[299] == 1
    assert blow_up.lengths("noise, β1 = 0", None, 10).min() > 1e5
    assert blow_up.lengths("noise, β1 = 0", 1.0, 10).max() <= 1
    assert blow_up.lengths("noise", None, 300).max() < 2
