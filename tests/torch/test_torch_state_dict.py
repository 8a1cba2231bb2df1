"""Saving and loading: the continuation has the bits of the run that was never stopped."""

import copy

import pytest
import torch
from torch_helpers import OPTIONS, assert_same, parameter, steps
from torch_peers import through_a_file

from adabelief_torch import AdaBelief
from adabelief_torch._memory import MOMENTS

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]


def twin_of(optimizer, **options):
    """An optimizer without state over copies of the parameters."""
    return AdaBelief([p.detach().clone().requires_grad_() for p in optimizer.param_groups[0]["params"]], **options)


@pytest.mark.parametrize("foreach", [None, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_run_goes_on_bit_for_bit(dtype, foreach):
    optimizer = AdaBelief([parameter(3, 4, dtype=dtype), parameter(dtype=dtype)], foreach=foreach, **OPTIONS)
    steps(optimizer, 7)
    twin = twin_of(optimizer)
    twin.load_state_dict(through_a_file(optimizer.state_dict()))
    assert {key: twin.param_groups[0][key] for key in OPTIONS} == OPTIONS
    steps(optimizer, 3, start=7)
    steps(twin, 3, start=7)
    assert_same(optimizer, twin)


def test_a_loaded_state_is_a_copy():
    optimizer = AdaBelief([parameter(3)], **OPTIONS)
    steps(optimizer, 1)
    twin = twin_of(optimizer)
    twin.load_state_dict(optimizer.state_dict())
    before = copy.deepcopy(optimizer.state_dict()["state"])
    steps(twin, 3, start=1)
    for key, x in optimizer.state_dict()["state"][0].items():
        assert torch.equal(x, before[0][key])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_compensation_of_the_sum_is_kept(dtype):
    optimizer = AdaBelief([parameter(3, 4, dtype=dtype)], kahan_sum=True)
    steps(optimizer, 7)
    saved = through_a_file(optimizer.state_dict())
    (p,) = optimizer.param_groups[0]["params"]
    assert saved["state"][0]["kahan_comp"].any()
    twin = twin_of(optimizer)
    twin.load_state_dict(saved)
    assert twin.param_groups[0]["kahan_sum"] is True
    assert_same(optimizer, twin)
    steps(optimizer, 3, start=7)
    steps(twin, 3, start=7)
    assert_same(optimizer, twin)
    other = twin_of(optimizer, kahan_sum=True)
    del saved["state"][0]["kahan_comp"]
    other.load_state_dict(saved)
    assert "kahan_comp" not in other.state[other.param_groups[0]["params"][0]]
    steps(other, 1)
    assert other.state[other.param_groups[0]["params"][0]]["kahan_comp"].shape == p.shape


def test_half_precision_moments_of_a_checkpoint_become_float32():
    optimizer = AdaBelief([parameter(3, dtype=torch.float16)], amsgrad=True, kahan_sum=True)
    steps(optimizer, 1)
    saved = optimizer.state_dict()
    for key in MOMENTS:
        saved["state"][0][key] = saved["state"][0][key].half()
    optimizer.load_state_dict(saved)
    (p,) = optimizer.param_groups[0]["params"]
    for key in MOMENTS:
        assert optimizer.state[p][key].dtype is torch.float32
    steps(optimizer, 1)


def test_loading_converts_to_the_parameters_of_now():
    optimizer = AdaBelief([parameter(3)])
    steps(optimizer, 1)
    saved = optimizer.state_dict()
    double = AdaBelief([parameter(3, dtype=torch.float64)])
    double.load_state_dict(saved)
    (p,) = double.param_groups[0]["params"]
    assert double.state[p]["exp_avg"].dtype is torch.float64
    steps(double, 1, start=1)


@pytest.mark.parametrize("step", [3, 3.0, torch.tensor(3), torch.tensor([3.0]), torch.tensor(3.0)])
def test_steps_are_kept_as_float32_scalars(step):
    optimizer = AdaBelief([parameter(2)])
    steps(optimizer, 1)
    saved = optimizer.state_dict()
    saved["state"][0] = {**saved["state"][0], "step": step}
    optimizer.load_state_dict(saved)
    (p,) = optimizer.param_groups[0]["params"]
    kept = optimizer.state[p]["step"]
    assert (kept.item(), kept.dtype, kept.shape) == (3.0, torch.float32, ())


def test_options_that_a_checkpoint_lacks_keep_their_values():
    optimizer = AdaBelief([{"params": [parameter(2)], "nesterov": True}], rectify=True, update_clip=0.5)
    steps(optimizer, 1)
    saved = optimizer.state_dict()
    for key in ("nesterov", "rectify", "eps_root", "update_clip", "foreach"):
        del saved["param_groups"][0][key]
    saved["param_groups"][0]["lr"] = 0.5
    optimizer.load_state_dict(saved)
    group = optimizer.param_groups[0]
    assert (group["nesterov"], group["rectify"], group["eps_root"], group["lr"]) == (True, True, None, 0.5)
    assert group["update_clip"] == 0.5


def test_a_pickle_from_before_an_option_existed_takes_its_default():
    optimizer = AdaBelief([parameter(2)])
    kept = copy.deepcopy(optimizer.__getstate__())
    for options in (kept["defaults"], kept["param_groups"][0]):
        del options["nesterov"], options["update_clip"], options["foreach"]
    optimizer.__setstate__(kept)
    assert optimizer.defaults["nesterov"] is False
    assert optimizer.param_groups[0]["update_clip"] is None
    assert optimizer.param_groups[0]["foreach"] is None
    steps(optimizer, 1)


def test_hooks_see_the_state_dict_and_the_loaded_state():
    optimizer = AdaBelief([parameter(3, dtype=torch.bfloat16)])
    steps(optimizer, 2)
    twin = twin_of(optimizer)
    seen = []

    def halve(_, state_dict):
        state_dict["param_groups"][0]["lr"] = 0.5
        return state_dict

    twin.register_load_state_dict_pre_hook(halve)
    twin.register_load_state_dict_post_hook(lambda o: seen.extend(s["exp_avg"].dtype for s in o.state.values()))
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert seen == [torch.float32]
    assert twin.param_groups[0]["lr"] == 0.5
    assert len(twin._optimizer_load_state_dict_pre_hooks) == 1


def change(key, value):
    return lambda saved: saved["state"][1].update({key: value})


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (change("exp_avg", torch.zeros(4)), ValueError, r"\[1\].*state\[1\]\['exp_avg'\]: shape \[4\] .*\[3\]"),
        (change("exp_avg_var", torch.zeros(())), ValueError, r"state\[1\]\['exp_avg_var'\]: shape \[\]"),
        (change("max_exp_avg_var", torch.zeros(2)), ValueError, r"state\[1\]\['max_exp_avg_var'\]: shape \[2\]"),
        (change("kahan_comp", torch.zeros(4)), ValueError, r"state\[1\]\['kahan_comp'\]: shape \[4\]"),
        (change("exp_avg", [0.0] * 3), ValueError, r"state\[1\]\['exp_avg'\]: \[0.0"),
        (change("exp_avg", torch.zeros(3, dtype=torch.complex64)), ValueError, r"complex64 \(expected torch.float32\)"),
        (change("exp_avg", torch.zeros(3, dtype=torch.int64)), ValueError, r"int64 \(expected torch.float32\)"),
        (change("step", -1), ValueError, r"state\[1\]\['step'\]: -1 "),
        (change("step", 1.5), ValueError, r"state\[1\]\['step'\]: 1.5 "),
        (change("step", float("nan")), ValueError, r"state\[1\]\['step'\]: nan "),
        (change("step", torch.zeros(2)), ValueError, r"state\[1\]\['step'\]: tensor"),
        (change("step", "3 steps"), ValueError, r"state\[1\]\['step'\]: '3 steps'"),
        (lambda saved: saved["state"][1].pop("exp_avg_var"), ValueError, r"state\[1\] has no 'exp_avg_var'"),
        (lambda saved: saved["state"][1].pop("step"), ValueError, r"state\[1\] has no 'step'"),
        (lambda saved: saved["param_groups"][0].update(lr=-1), ValueError, "Invalid learning rate: -1"),
        (lambda saved: saved["param_groups"][0].update(nesterov=1), TypeError, "Invalid nesterov: 1"),
        (
            lambda saved: saved["param_groups"][0].update(fused=True, foreach=True),
            RuntimeError,
            "`fused` and `foreach`",
        ),
        (lambda saved: saved["param_groups"].pop(), ValueError, "different number of parameter groups"),
        (lambda saved: saved["param_groups"][0]["params"].pop(), ValueError, "size of optimizer's group"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_changes(spoil, error, match):
    optimizer = AdaBelief([parameter(2), parameter(3, dtype=torch.bfloat16)])
    steps(optimizer, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(saved)
    spoil(saved)
    with pytest.raises(error, match=match):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for index, state in before["state"].items():
        for key, x in state.items():
            assert torch.equal(after["state"][index][key], x)
    assert not optimizer._optimizer_load_state_dict_pre_hooks


@pytest.mark.parametrize("capturable", [False, True])
def test_the_state_comes_to_the_parameter_s_device_and_the_step_where_the_group_wants_it(capturable):
    # No device but the host is needed to see where it would lie.
    optimizer = AdaBelief([parameter(3)], capturable=capturable)
    steps(optimizer, 2)
    elsewhere = AdaBelief([torch.nn.Parameter(torch.empty(3, device="meta"))])
    elsewhere.load_state_dict(optimizer.state_dict())
    (state,) = elsewhere.state.values()
    assert state["exp_avg"].device.type == "meta"
    assert state["step"].device.type == ("meta" if capturable else "cpu")
