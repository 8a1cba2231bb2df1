"""The core's steps, bit for bit, op by op and compiled."""

import jax
import numpy as np
import pytest

from adabelief_core import AdaBelief
from adabelief_core.parity import DTYPES, check, covering, quick
from adabelief_jax import adabelief
from adabelief_jax._parity import adapter

MODES = {(mode.name, mode.device): mode for mode in adapter.modes()}
OP_BY_OP, JIT = MODES["op by op", "cpu"], MODES["jit", "cpu"]
# A compilation costs a tenth of a second a tensor: these are the ones that differ for XLA.
TENSORS = ("scalar", "empty", "spread", "nonfinite")


def assert_bits(mode, problem):
    result = check(mode, problem)
    assert (result.differing, result.ulps, result.first) == (0, 0, ""), problem.name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_pair_of_options_op_by_op(dtype):
    for problem in covering(dtype, tensors=TENSORS):
        assert_bits(OP_BY_OP, problem)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_pair_of_options_compiled(dtype):
    for problem in covering(dtype, tensors=TENSORS if dtype == "float32" else TENSORS[2:]):
        assert_bits(JIT, problem)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", [OP_BY_OP, JIT], ids=lambda mode: mode.name)
def test_every_kind_of_tensor(mode, dtype):
    for problem in quick(dtype):
        assert_bits(mode, problem)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_ten_thousand_steps(dtype):
    problems = quick(dtype, steps=10_000, tensors=("odd",))
    for problem in problems if dtype != "float64" else problems[1:]:
        assert_bits(JIT, problem)


def test_the_promise_of_the_cpu_is_bits():
    assert [(mode.ulps, mode.rounds_update, list(mode.dtypes)) for mode in (OP_BY_OP, JIT)] == [
        (0, True, list(DTYPES))
    ] * 2
    assert jax.__version__ in adapter.framework
    assert OP_BY_OP.slow is False
    assert JIT.slow is True


def test_the_comparison_sees_a_changed_bit():
    problem = quick("float32", steps=2, tensors=("odd",))[0]
    mode = adapter.modes()[0]

    def start(problem):
        run = mode.start(problem)
        run._params = {"odd": run._params["odd"].at[0, 0].set(np.nextafter(run._params["odd"][0, 0], np.float32(9)))}
        return run

    result = check(type(mode)("tampered", start), problem)
    assert result.first == "step 1, p of 'odd'"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["op by op", "jit"])
def test_gpu(name, dtype):
    if (name, "gpu") not in MODES:
        pytest.skip("JAX has no CUDA device")
    mode = MODES[name, "gpu"]
    for problem in quick(dtype):
        assert check(mode, problem).ulps <= mode.ulps, problem.name


def test_without_eps_root_a_subnormal_second_moment_may_be_flushed():
    """XLA on a CPU flushes subnormal numbers: less than 2^-126 a step, less than 2^-126/(1-β2) in all."""
    least = np.finfo(np.float32).smallest_normal
    params = {"w": np.ones(50, np.float32)}
    reference = AdaBelief(params, eps=1e-8, eps_root=0.0)
    opt = adabelief(1e-3, eps=1e-8, eps_root=0.0)
    state = opt.init(params)
    rng = np.random.default_rng(0)
    flushed = 0
    for _ in range(20):
        grads = {"w": np.float32(1e-19) * rng.standard_normal(50, np.float32)}
        reference.step(grads)
        _, state = jax.jit(opt.update)(grads, state)
        ours, exact = np.asarray(state[0].nu["w"]), reference.state["w"].s
        assert (np.abs(ours - exact) < least / (1 - 0.999)).all()
        flushed += int((ours != exact).sum())
    assert flushed
