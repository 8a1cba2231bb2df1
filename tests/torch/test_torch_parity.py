"""The same bits as the readable rule, in every mode on this machine's CPU."""

import numpy as np
import pytest
import torch

from adabelief_core.parity import DTYPES, Mode, check, compare, covering, quick
from adabelief_torch import AdaBelief
from adabelief_torch._parity import _mode, adapter, to_array, to_tensor
from adabelief_torch._tensors import _flush, square_root

MODES = {mode.name: mode for mode in adapter.modes() if mode.device == "cpu"}


def assert_same(mode: Mode, problems: list) -> None:
    broken = {problem.name: result for problem in problems if (result := check(mode, problem)).differing}
    assert not broken


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", [name for name in MODES if name != "compiled"])
def test_every_option_and_pair_of_options_has_the_rules_bits(mode, dtype):
    assert_same(MODES[mode], covering(dtype))


@pytest.mark.parametrize(("mode", "dtype"), [("eager", "float32"), ("eager", "bfloat16"), ("foreach", "float32")])
def test_ten_thousand_steps_have_the_rules_bits(mode, dtype):
    assert_same(MODES[mode], quick(dtype, steps=10_000, tensors=("odd",))[1:])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_one_tensor_at_a_time_has_the_rules_bits(monkeypatch, dtype):
    # It is for memory that NumPy does not reach, as a device's; pretend that this is.
    monkeypatch.setattr("adabelief_torch._plan.has_memory", lambda x: False)
    assert_same(_mode("single", foreach=False), covering(dtype))


def test_foreach_flushes_subnormal_numbers_as_the_rule_does():
    least = np.finfo(np.float32).smallest_normal
    below = np.nextafter(least, np.float32(0))
    x = np.float32([0.0, -0.0, below, -below, 1e-45, least, -least, 1.0, -1e30, np.inf, -np.inf, np.nan])
    tensor = torch.from_numpy(x.copy())
    _flush([tensor], float(least))
    assert compare(tensor.numpy(), np.where(np.abs(x) < least, np.float32(0), x)).count == 0


def compiled(test):
    """Mark a test of compiled steps; torch 2.13 warns of itself when it imports its compiler and of complex numbers."""
    test = pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")(test)
    test = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")(test)
    return pytest.mark.skipif("compiled" not in MODES, reason="no C++ compiler")(test)


@compiled
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_steps_have_the_rules_bits(dtype):
    assert_same(MODES["compiled"], quick(dtype, tensors=("scalar", "strided", "nonfinite"))[1:])


@compiled
def test_compiled_defaults_have_the_rules_bits():
    assert_same(MODES["compiled"], quick("float32", tensors=("spread",))[:1])


@compiled
def test_steps_a_tensors_learning_rates_and_the_switch_of_rectification_compile_once():
    torch.compiler.reset()
    p = torch.nn.Parameter(torch.ones(5))
    p.grad = torch.ones(5)
    optimizer = AdaBelief([p], lr=torch.tensor(0.1), rectify=True)
    step = torch.compile(optimizer.step)
    step()
    with torch.compiler.set_stance("fail_on_recompile"):
        for t in range(10):
            optimizer.param_groups[0]["lr"].fill_(0.1 / (t + 1))
            step()
    assert optimizer.state[p]["step"] == 11
    torch.compiler.reset()


def test_torchs_own_square_root_is_why_foreach_takes_numpys():
    x = torch.rand(100_000)
    assert np.array_equal(square_root(x).numpy(), np.sqrt(x.numpy()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.complex64])
def test_adapters_copies_are_faithful(dtype):
    x = torch.randn(3, 4).to(dtype).t()
    array = to_array(x)
    back = to_tensor(array)
    assert torch.equal(back, x)
    assert back.data_ptr() != x.data_ptr()
