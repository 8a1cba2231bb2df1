"""What torch's own tests ask of an optimizer's state, hooks and copies, asked of AdaBelief's."""

import copy
import pickle
from contextlib import ExitStack

import pytest
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch_conformance import INFO, build, each_config, give_grads, leaves, steps
from torch_helpers import assert_same

from adabelief_torch import AdaBelief


def twin(params, given):
    """An optimizer without state over copies of the parameters, and these."""
    others = [p.detach().clone().requires_grad_(p.requires_grad) for p in params]
    return build(others, given), others


@each_config
def test_a_loaded_run_goes_on_with_the_same_bits_and_saves_the_same(given):
    params = leaves(given)
    optimizer = build(params, given)
    steps(optimizer, params, 7)
    other, others = twin(params, given)
    other.load_state_dict(optimizer.state_dict())
    ours, theirs = optimizer.state_dict(), other.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys() == set(range(len(params)))
    for key, state in ours["state"].items():
        for name, x in state.items():
            assert torch.equal(x, theirs["state"][key][name])
            assert not x.numel() or x.data_ptr() != theirs["state"][key][name].data_ptr()
    steps(optimizer, params, 3, start=7)
    steps(other, others, 3, start=7)
    assert_same(optimizer, other)


@each_config
def test_a_state_from_before_a_flag_existed_goes_on(given):
    params = leaves(given)
    optimizer = build(params, given)
    steps(optimizer, params, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    other, others = twin(params, given)
    for flag in INFO.not_og_supported_flags:
        del saved["param_groups"][0][flag]
    for index, state in enumerate(saved["state"].values()):
        # Once a Python number; then a tensor of one element.
        state["step"] = (2, 2.0, torch.tensor(2), torch.tensor([2.0]))[index]
    other.load_state_dict(saved)
    for state in other.state.values():
        assert (state["step"].dtype, state["step"].shape) == (torch.float32, ())
    steps(other, others, 2, start=2)
    steps(optimizer, params, 2, start=2)
    assert_same(optimizer, other)


@each_config
def test_parameters_that_were_moved_to_another_dtype_take_their_state_along(given):
    params = leaves(given)
    optimizer = build(params, given)
    steps(optimizer, params, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    for p in params:
        p.grad = None
        p.data = p.data.double()
    optimizer.load_state_dict(saved)
    moments = [x for state in optimizer.state.values() for key, x in state.items() if key != "step"]
    assert {x.dtype for x in moments} == {torch.float64}
    before = [p.detach().clone() for p in params]
    steps(optimizer, params, 1, start=2)
    assert not any(torch.equal(p, q) for p, q in zip(params, before, strict=True) if p.numel())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@each_config
def test_copies_go_on_with_the_same_bits(given, duplicate):
    params = leaves(given)
    optimizer = build(params, given)
    steps(optimizer, params, 7)
    other = duplicate(optimizer)
    assert other.defaults == optimizer.defaults
    others = other.param_groups[0]["params"]
    steps(optimizer, params, 3, start=7)
    steps(other, others, 3, start=7)
    assert_same(optimizer, other)


@each_config
def test_its_text_shows_each_option(given):
    optimizer = build(leaves(given), given)
    text = repr(optimizer)
    assert text.startswith("AdaBelief (\nParameter Group 0\n")
    lines = [line.strip() for line in text.splitlines()]
    for key, value in given.kwargs.items():
        assert any(line == f"{key}: {value}".splitlines()[0] for line in lines)
    assert sum(line.startswith("lr: ") for line in lines) == 1


def tiny(**options):
    """An optimizer that could take a step."""
    params = [torch.ones(2, requires_grad=True)]
    give_grads(params, 0)
    return AdaBelief(params, **options), params


def test_step_hooks_run_in_order_and_get_what_the_step_got():
    optimizer, params = tiny()
    calls = []

    def hook(name):
        def run(opt, args, kwargs):
            assert opt is optimizer
            calls.append((name, len(args), sorted(kwargs), optimizer.state.get(params[0], {}).get("step", 0) + 0.0))

        return run

    with ExitStack() as hooks:
        for register, name in (
            (register_optimizer_step_pre_hook, "global before"),
            (optimizer.register_step_pre_hook, "before"),
            (optimizer.register_step_post_hook, "after"),
            (register_optimizer_step_post_hook, "global after"),
        ):
            handle = register(hook(name))
            hooks.callback(handle.remove)
        assert optimizer.step(closure=lambda: 2.5) == 2.5
    assert [call[0] for call in calls] == ["global before", "before", "after", "global after"]
    assert [call[3] for call in calls] == [0.0, 0.0, 1.0, 1.0]
    assert {call[2][0] for call in calls} == {"closure"}
    optimizer.step()
    assert len(calls) == 4


def test_a_step_hook_may_change_the_arguments():
    optimizer, _ = tiny()
    seen = []
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: (args, {"closure": lambda: seen.append(1) or 3.0}))
    assert optimizer.step() == 3.0
    assert seen == [1]


def test_state_dict_hooks_see_and_change_what_is_saved():
    optimizer, _ = tiny()
    optimizer.step()
    order = []
    optimizer.register_state_dict_pre_hook(lambda opt: order.append("before"))
    optimizer.register_state_dict_post_hook(lambda opt, saved: {**saved, "note": len(order)})
    first = optimizer.register_state_dict_post_hook(lambda opt, saved: order.append("first"), prepend=True)
    assert optimizer.state_dict()["note"] == 2
    first.remove()
    assert optimizer.state_dict()["note"] == 3
    assert order == ["before", "first", "before"]


def test_load_state_dict_hooks_see_and_change_what_is_loaded():
    optimizer, params = tiny()
    optimizer.step()
    saved = optimizer.state_dict()
    order = []

    def before(opt, given):
        order.append("before")
        changed = copy.deepcopy(given)
        changed["param_groups"][0]["lr"] = 0.5
        changed["state"][0]["step"] = 7
        return changed

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(lambda opt: order.append(opt.state[params[0]]["step"].item()))
    optimizer.register_load_state_dict_post_hook(lambda opt: order.append("first"), prepend=True)
    optimizer.load_state_dict(saved)
    assert order == ["before", "first", 7.0]
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert saved["param_groups"][0]["lr"] == 1e-3


def test_a_copy_has_none_of_the_hooks():
    # As torch.optim has it: an optimizer's own hooks are not part of its state.
    optimizer, _ = tiny()
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(1))
    other = copy.deepcopy(optimizer)
    assert not other._optimizer_step_pre_hooks
    other.step()
    assert seen == []


def test_a_resumed_run_keeps_betas_that_a_scheduler_has_made_of_a_tensor_and_a_number():
    # AdamW's constructor takes two numbers or two tensors, but its step takes what OneCycleLR leaves.
    def start():
        params = leaves_of_one()
        betas = (torch.tensor(0.9), torch.tensor(0.99))
        optimizer = AdaBelief(params, lr=torch.tensor(0.1), betas=betas)
        return params, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)

    def leaves_of_one():
        return [torch.linspace(-1, 1, 5).requires_grad_()]

    params, optimizer, scheduler = start()
    for t in range(3):
        steps(optimizer, params, 1, start=t)
        scheduler.step()
    assert [type(beta) for beta in optimizer.param_groups[0]["betas"]] == [float, torch.Tensor]
    others, other, _ = start()
    with torch.no_grad():
        others[0].copy_(params[0])
    other.load_state_dict(optimizer.state_dict())
    steps(optimizer, params, 2, start=3)
    steps(other, others, 2, start=3)
    assert_same(optimizer, other)
