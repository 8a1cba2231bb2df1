"""What AdamW refuses is refused here, with the same error and in the same words."""

import re

import pytest
import torch
from torch_conformance import INFO, OptimizerErrorEnum

from adabelief_torch import AdaBelief

ERRORS = INFO.optim_error_inputs_func("cpu", torch.float32)


@pytest.mark.parametrize("given", ERRORS, ids=lambda given: given.optimizer_error_input.desc)
def test_the_errors_of_the_info(given):
    params, kwargs = given.optimizer_error_input.params, given.optimizer_error_input.kwargs
    params = [torch.zeros(2, requires_grad=True)] if params is None else params
    raises = pytest.warns if issubclass(given.error_type, Warning) else pytest.raises
    if given.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR:
        with raises(given.error_type, match=given.error_regex):
            AdaBelief(params, **kwargs)
        return
    optimizer = AdaBelief(params, **kwargs)
    with raises(given.error_type, match=given.error_regex):
        optimizer.step()
    assert not optimizer.state


def error_of(call, *args, **kwargs):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which, is what the test compares
        call(*args, **kwargs)
    return caught.value


def assert_same_error(ours, theirs):
    assert type(ours) is type(theirs)
    # AdamW's step calls itself Adam.
    assert re.sub(r"\bAdamW?\b", "AdaBelief", str(theirs)) in str(ours)


TENSOR = torch.tensor(0.5)
PAIR = (TENSOR, TENSOR)
CONSTRUCTOR = [
    {"lr": -0.1},
    {"lr": float("nan")},
    {"lr": torch.ones(2)},
    {"lr": torch.ones(0)},
    {"lr": TENSOR, "foreach": True},
    {"lr": torch.ones(2), "foreach": True},
    {"eps": -1e-8},
    {"eps": float("nan")},
    {"betas": (1.0, 0.999)},
    {"betas": (-0.1, 0.999)},
    {"betas": (0.9, 1.0)},
    {"betas": (0.9, -1.0)},
    {"betas": (0.9, float("nan"))},
    {"betas": (TENSOR, 0.999)},
    {"betas": (0.9, TENSOR)},
    {"betas": PAIR, "foreach": True},
    {"weight_decay": -0.1},
    {"weight_decay": -1},
    {"weight_decay": float("nan")},
    {"fused": True, "foreach": True},
    {"fused": True, "differentiable": True},
    {"fused": True, "foreach": True, "differentiable": True},
    {"nonsense": 1},
]


@pytest.mark.parametrize("kwargs", CONSTRUCTOR, ids=str)
def test_the_constructors_errors_are_adamws(kwargs):
    params = [torch.zeros(2, requires_grad=True)]
    assert_same_error(error_of(AdaBelief, params, **kwargs), error_of(torch.optim.AdamW, params, **kwargs))


def test_the_comparison_of_errors_sees_another_type_and_another_text():
    with pytest.raises(AssertionError):
        assert_same_error(ValueError("Invalid learning rate: -1"), TypeError("Invalid learning rate: -1"))
    with pytest.raises(AssertionError):
        assert_same_error(ValueError("Invalid learning rate: -1"), ValueError("Invalid learning rate: -2"))
    with pytest.raises(AssertionError):
        assert_same_error(ValueError("AdaBelief refuses"), ValueError("Adam does not"))


@pytest.mark.parametrize("params", [[], torch.zeros(2), [1.0], [{"lr": 1.0}], [{"params": {torch.zeros(2)}}]], ids=str)
def test_the_errors_of_every_optimizer_are_torchs(params):
    assert_same_error(error_of(AdaBelief, params), error_of(torch.optim.AdamW, params))


def test_a_parameter_that_is_no_leaf_is_refused():
    params = [torch.zeros(2, requires_grad=True) * 2]
    assert_same_error(error_of(AdaBelief, params), error_of(torch.optim.AdamW, params))


def stepping(cls, change, make=lambda: torch.zeros(2, requires_grad=True), **kwargs):
    """A step after something has been changed that the constructor would refuse."""
    params = [make(), make()]
    optimizer = cls(params, **kwargs)
    for p in params:
        p.grad = torch.ones_like(p)
    change(optimizer, params)
    before = [p.detach().clone() for p in params]
    error = error_of(optimizer.step)
    if cls is AdaBelief:
        assert all(map(torch.equal, params, before))
        assert not optimizer.state
    return error


def sparse(_, params):
    params[1].grad = params[1].grad.to_sparse()


def set_later(**kwargs):
    return lambda optimizer, _: optimizer.param_groups[0].update(kwargs)


STEP = {
    "sparse": (sparse, {}),
    "sparse, foreach": (sparse, {"foreach": True}),
    "sparse, fused": (sparse, {"fused": True}),
    "a tensor as learning rate, foreach": (set_later(lr=TENSOR), {"foreach": True}),
    "a learning rate of two elements, foreach": (set_later(lr=torch.ones(2)), {"foreach": True, "lr": 0.1}),
}


@pytest.mark.parametrize("name", STEP)
def test_the_steps_errors_are_adamws_and_nothing_has_changed(name):
    change, kwargs = STEP[name]
    ours, theirs = (stepping(cls, change, **kwargs) for cls in (AdaBelief, torch.optim.AdamW))
    assert_same_error(ours, theirs)


def test_tensors_as_betas_under_foreach_are_refused_with_adamws_error():
    # AdamW names its function's argument there, beta1; here it is the option's name, as in the constructor.
    ours, theirs = (stepping(cls, set_later(betas=PAIR), foreach=True) for cls in (AdaBelief, torch.optim.AdamW))
    assert type(ours) is type(theirs)
    assert "betas[0]" + str(theirs).removeprefix("beta1") in str(ours)


def test_a_step_count_that_requires_grad_is_refused_as_adamw_does():
    def run(cls):
        p = torch.zeros(2)
        optimizer = cls([p], differentiable=True)
        p.grad = torch.ones(2)
        optimizer.step()
        optimizer.state[p]["step"].requires_grad_()
        before = p.clone()
        error = error_of(optimizer.step)
        assert cls is torch.optim.AdamW or torch.equal(p, before)
        return error

    assert_same_error(run(AdaBelief), run(torch.optim.AdamW))


def test_fused_is_refused_where_there_is_no_kernel_as_adamw_does_but_before_the_first_step():
    def run(cls):
        p = torch.zeros(2, device="meta", requires_grad=True)
        optimizer = cls([p], fused=True)
        p.grad = torch.ones_like(p)
        optimizer.step()

    ours, theirs = error_of(run, AdaBelief), error_of(run, torch.optim.AdamW)
    assert type(ours) is type(theirs)
    head = "`fused=True` requires all the params to be floating point Tensors of supported devices: ["
    for error in (ours, theirs):
        assert head in str(error)
        assert str(error).endswith("but torch.float32 and meta")


def test_foreach_with_differentiable_is_refused_where_it_is_asked_for():
    # AdamW notices at its step alone, with an AssertionError.
    def run(cls):
        p = torch.zeros(2)
        optimizer = cls([p], foreach=True, differentiable=True)
        p.grad = torch.ones(2)
        optimizer.step()

    ours, theirs = error_of(run, AdaBelief), error_of(run, torch.optim.AdamW)
    assert (type(ours), type(theirs)) == (RuntimeError, AssertionError)
    assert str(theirs) in str(ours)


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}])
def test_what_adamw_asserts_of_capturable_on_a_cpu_is_no_error_here(path):
    def run(cls):
        p = torch.zeros(2, requires_grad=True)
        optimizer = cls([p], capturable=True, **path)
        p.grad = torch.ones(2)
        optimizer.step()
        return p

    if not path.get("fused"):
        assert "If capturable=True, params and state_steps must be on supported devices" in str(
            error_of(run, torch.optim.AdamW)
        )
    assert run(AdaBelief).any()


def test_what_adamw_takes_is_taken():
    p = torch.zeros(2, requires_grad=True)
    for kwargs in (
        {"lr": 0},
        {"lr": torch.tensor(1)},
        {"lr": torch.tensor(0.1, dtype=torch.float64)},
        {"eps": 0},
        {"betas": (0.0, 0.0)},
        {"betas": [0.9, 0.99]},
        {"weight_decay": torch.tensor(0.1)},
        {"fused": False, "foreach": False},
        {"fused": True, "foreach": False},
        {"foreach": True, "fused": False, "lr": torch.tensor([0.1]), "betas": PAIR, "capturable": True},
    ):
        torch.optim.AdamW([p], **kwargs)
        optimizer = AdaBelief([p], **kwargs)
        p.grad = torch.ones(2)
        optimizer.step()
        assert optimizer.state[p]["step"] == 1
