"""The state of torch.optim.Adam and AdamW: the first moment as it is, the second as that of the surprise."""

import copy
import math

import pytest
import torch
from torch_helpers import parameter
from torch_peers import continued, large_parameter, sole, together

from adabelief_torch import AdaBelief

# For β1 = 0.9: E (g-m)² = κ E g² for noise about zero.
KAPPA = 2 * 0.9**2 / 1.9
FLOOR = 1e-16 * (1 - 0.999**20) / 0.001


def adam_run(optimizer=torch.optim.AdamW, count=20, dtype=torch.float64, mean=0.0, **options):
    source = optimizer([large_parameter(dtype)], **options)
    together([source], count, mean=mean)
    return source


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_the_moments_of_adam(optimizer, amsgrad):
    source = adam_run(optimizer, amsgrad=amsgrad)
    _, theirs = sole(source)
    _, ours = sole(continued(source))
    assert ours.keys() == {"step", "exp_avg", "exp_avg_var"} | ({"max_exp_avg_var"} if amsgrad else set())
    assert ours["step"] == 20
    assert torch.equal(ours["exp_avg"], theirs["exp_avg"])
    torch.testing.assert_close(ours["exp_avg_var"], KAPPA * theirs["exp_avg_sq"] + FLOOR, rtol=1e-15, atol=0)
    if amsgrad:
        expected = KAPPA * theirs["max_exp_avg_sq"] + FLOOR
        torch.testing.assert_close(ours["max_exp_avg_var"], expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize(("mean", "expected"), [(0.0, 1.0), (0.3, 0.96), (1.0, 0.71), (3.0, 0.32)])
def test_the_second_moment_of_adam_gives_no_longer_steps_than_adabelief_s_own(mean, expected):
    # The ratio of the steps is that of the roots. It is 1 for noise, and small where the gradient is predictable, as
    # Adam's own steps are.
    options = {"betas": (0.9, 0.99)}
    parameters = [large_parameter(torch.float64, 2_000) for _ in range(2)]
    adam, belief = torch.optim.Adam(parameters[:1], **options), AdaBelief(parameters[1:], **options)
    for count in (20, 480):
        together([adam, belief], count, start=int(sole(belief)[1].get("step", 0)), mean=mean)
        mapped, own = (sole(optimizer)[1]["exp_avg_var"] for optimizer in (continued(adam), belief))
        ratio = (own / mapped).sqrt()
        assert ratio.max() < 1.03
    assert math.isclose(ratio.median(), expected, abs_tol=0.01)


def test_the_first_step_after_adam_is_adams_but_for_the_factor():
    source = adam_run(count=500, lr=1e-4, weight_decay=0.0)
    resumed = continued(source)
    before = sole(source)[0].clone()
    together([source, resumed], 1, start=500)
    ratio = (sole(resumed)[0] - before) / (sole(source)[0] - before)
    assert math.isclose(ratio.median().item(), KAPPA**-0.5, rel_tol=1e-2)
    assert ratio.max() < 1.1


def test_where_adam_saw_no_gradient_the_second_moment_is_what_eps_root_added():
    p, q = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    adam, belief = torch.optim.Adam([p]), AdaBelief([q], eps_root=1e-10)
    for _ in range(20):
        p.grad, q.grad = torch.zeros_like(p), torch.zeros_like(q)
        adam.step()
        belief.step()
    mapped, own = (sole(optimizer)[1]["exp_avg_var"] for optimizer in (continued(adam, eps_root=1e-10), belief))
    assert own.min() > 1e-9
    torch.testing.assert_close(mapped, own, rtol=1e-13, atol=0)


def test_a_group_of_adam_has_its_options_but_for_eps_and_how_it_runs():
    theirs = {"lr": 1e-2, "betas": (0.8, 0.99), "weight_decay": 0.1, "amsgrad": True, "maximize": True}
    source = adam_run(torch.optim.Adam, eps=1e-4, foreach=True, **theirs)
    (group,) = continued(source, eps=1e-12, rectify=True, foreach=False).param_groups
    assert {key: group[key] for key in theirs} == theirs
    assert group["weight_decouple"] is False
    assert (group["eps"], group["eps_root"], group["rectify"], group["foreach"]) == (1e-12, None, True, False)
    assert "decoupled_weight_decay" not in group
    assert continued(adam_run()).param_groups[0]["weight_decouple"] is True


@pytest.mark.parametrize("weight_decouple", [False, True])
def test_a_group_of_adam_that_does_not_say_whether_decay_is_decoupled_leaves_it(weight_decouple):
    source = adam_run()
    del source.param_groups[0]["decoupled_weight_decay"]
    assert continued(source, weight_decouple=weight_decouple).param_groups[0]["weight_decouple"] is weight_decouple


def test_adam_before_its_first_step_leaves_eps_alone():
    assert continued(torch.optim.Adam([parameter(3)])).param_groups[0]["eps"] == 1e-16


def test_half_precision_moments_of_adam_are_widened_before_they_are_scaled():
    source = adam_run(dtype=torch.bfloat16)
    theirs, ours = sole(source)[1]["exp_avg_sq"], sole(continued(source))[1]["exp_avg_var"]
    assert (theirs.dtype, ours.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(ours, KAPPA * theirs.float() + FLOOR, rtol=1e-6, atol=0)


def test_complex_moments_of_adam_are_pairs():
    p = parameter(4, dtype=torch.complex128)
    source = torch.optim.Adam([p])
    p.grad = torch.tensor([1, 1j, 0, 2 + 1j], dtype=torch.complex128)
    source.step()
    s = torch.view_as_real(sole(continued(source))[1]["exp_avg_var"])
    expected = 1e-3 * KAPPA * torch.view_as_real(p.grad).square() + 1e-16
    torch.testing.assert_close(s, expected, rtol=1e-12, atol=0)


def test_the_given_state_stays_as_it_was():
    source = adam_run(amsgrad=True)
    saved = source.state_dict()
    before = copy.deepcopy(saved)
    resumed = AdaBelief([large_parameter(torch.float64)])
    resumed.load_state_dict(saved)
    together([resumed], 2)
    assert saved["param_groups"] == before["param_groups"]
    for key, x in before["state"][0].items():
        assert torch.equal(saved["state"][0][key], x)
