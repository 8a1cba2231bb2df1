"""`benchmarks/peers.py`: every peer is in the table, ours within its bound, and a perturbed optimizer is seen."""

import argparse
import subprocess
import sys
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("adabelief_pytorch")
pytest.importorskip("pytorch_optimizer")

from peer_arithmetic import contracted, power_error, wrong_roots
from peer_behaviour import calm, deep_copy, loaded_dtypes, memory, small_steps, state_dtypes, stepped
from peer_packages import run_core, run_torch, runners, torch_optimizers
from peers import Problem, at_least, bound, cells

ROOT = Path(__file__).parents[2]
PEERS = {"optax", "adabelief-pytorch", "timm", "pytorch_optimizer, foreach", "pytorch_optimizer, loop"}
OURS = {"adabelief_core", "adabelief_jax", "adabelief_torch"}


@pytest.fixture(scope="module")
def problem():
    return Problem.draw("float32", 100, 16)


def test_the_command_has_a_row_for_every_peer():
    command = [sys.executable, "benchmarks/peers.py", "--steps", "10", "--elements", "8"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    for dtype in ("float64", "float32", "float16", "bfloat16"):
        assert {row[1] for row in rows if row[0] == dtype} >= PEERS | OURS
    widths = {len(row) for row in rows if row[0] in ("float64", "float32", "float16", "bfloat16")}
    assert widths == {5}  # dtype, optimizer, t = 1, t = 10, remark
    assert {row[0] for row in rows} >= {"NumPy", "torch", "JAX, jit"}


@pytest.mark.parametrize("text", ["7", "-8", "x", "8.5"])
def test_numbers_out_of_range_are_refused(text):
    assert at_least(8)("8") == 8
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        at_least(8)(text)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_ours_is_within_its_bound(dtype):
    problem = Problem.draw(dtype, 100, 16)
    for label in OURS:
        found = dict(problem.deviations(runners(dtype)[label]))
        assert found.keys() == {1, 10, 100}
        for t, deviation in found.items():
            assert 0 < deviation.ulps <= bound(t), label
            assert (deviation.nan, deviation.stuck) == (0, 0)


@pytest.mark.parametrize("change", [{"eps": 1e-3}, {"betas": (0.9, 0.998)}, {"lr": 1.001e-3}])
def test_another_rule_is_seen(problem, change):
    build = torch_optimizers()["adabelief-pytorch"]
    perturbed = run_torch(lambda params, **hyper: build(params, **{**hyper, **change}))
    found = dict(problem.deviations(perturbed))
    assert found[100].ulps > 10 * bound(100)
    assert dict(problem.deviations(run_torch(build)))[100].ulps <= bound(100)


def test_ulps_that_are_known(problem):
    exact = [Decimal(float(x)) for x in problem.start]
    exact[0] += Decimal(2) ** -20  # so that something should have moved
    p = problem.start.copy()
    found = problem.deviation(p, exact, p == problem.start)
    ulp = 2.0 ** (np.floor(np.log2(abs(p[0]))) - 23)
    assert found.ulps == pytest.approx(2.0**-20 / ulp)
    assert found.relative == 1
    assert (found.nan, found.stuck) == (0, 1)
    p[1] = np.nan
    assert problem.deviation(p, exact, np.zeros(16, bool)).nan == 1
    assert problem.deviation(p, exact, np.zeros(16, bool)).stuck == 0


def test_cells():
    assert cells("TypeError: no", 10, 8) == ["-", "-", "TypeError: no"]


def test_every_runner_starts_where_the_problem_does(problem):
    """Without gradients nothing moves: conversions to and from each framework lose nothing."""
    zeros = [np.zeros_like(problem.start)]
    for label, run in runners("float32").items():
        (p,) = run(problem.start, zeros, "float32")
        np.testing.assert_array_equal(p, problem.start, err_msg=label)


def test_what_the_arithmetic_finds():
    assert wrong_roots(np.sqrt, np.float32) == 0
    assert wrong_roots(lambda x: np.nextafter(np.sqrt(x), np.float32(0)), np.float32) == 1
    assert contracted(lambda a, b, c: a * b + c) == 0
    assert contracted(lambda a, b, c: (a.astype("f8") * b + c).astype("f4")) > 0.1
    assert power_error(lambda t: -np.expm1(t * np.log(0.999))) < 1e-12
    assert power_error(lambda t: 1 - np.float32(0.999) ** t) > 1e-6


def test_what_the_probes_find():
    import torch

    build = torch_optimizers()["adabelief_torch"]
    assert state_dtypes(stepped(build, torch.float16)) == loaded_dtypes(build) == "float32"
    assert (calm(build), deep_copy(build), memory(build)) == ("1.00", "goes on alike", "stays")
    assert (small_steps(build), small_steps(partial(build, kahan_sum=True))) == ("none moves", "all move")

    class Faulty(torch.optim.SGD):
        """An SGD with the faults that the probes look for."""

        def __init__(self, params, **options):
            super().__init__(params, **options)
            self.option = True  # which torch's copy and pickle leave behind

        def step(self):
            super().step()
            for p in self.param_groups[0]["params"]:
                p.data = p.data.clone()
                self.state[p]["exp_avg_var"] = torch.ones_like(p) if self.option else None

    def faulty(params, betas, eps, **options):
        return Faulty(params, **options)

    assert state_dtypes(stepped(faulty, torch.float16)) == "float16"
    assert calm(faulty) != "1.00"
    assert deep_copy(faulty) == "its next step raises AttributeError"
    assert memory(faulty) == "moves"


def test_the_core_takes_bfloat16():
    problem = Problem.draw("bfloat16", 10, 8)
    assert dict(problem.deviations(run_core))[1].ulps <= 0.5
