"""`differentiable=True`: autograd's derivatives of a step are those of finite differences."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from adabelief_torch import AdaBelief

OPTIONS = {"betas": (0.9, 0.99), "eps": 1e-3, "eps_root": 1e-2}
VARIANTS = {
    "defaults": {},
    "decoupled": {"weight_decay": 0.1},
    "coupled, maximize": {"weight_decay": 0.1, "weight_decouple": False, "maximize": True},
    "fixed, nesterov": {"weight_decay": 0.1, "fixed_decay": True, "nesterov": True},
    "rectify": {"rectify": True},
    "amsgrad, kahan_sum": {"amsgrad": True, "kahan_sum": True},
    "update_clip": {"update_clip": 0.2},
}


def values(*shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def step_from(step, options):
    """A step as a function of the parameter, its gradient and its state."""

    def function(p, g, m, root_s, root_v, k):
        p = p.clone()
        p.grad = g
        optimizer = AdaBelief([p], differentiable=True, **{**OPTIONS, **options})
        state = {"step": torch.tensor(float(step)), "exp_avg": m.clone(), "exp_avg_var": root_s * root_s.conj()}
        if options.get("amsgrad"):
            state["max_exp_avg_var"] = root_v * root_v.conj()
        if options.get("kahan_sum"):
            state["kahan_comp"] = k.clone()
        optimizer.state[p].update(state)
        optimizer.step()
        assert optimizer.state[p]["step"] == step + 1
        return p, *(x for key, x in optimizer.state[p].items() if key != "step")

    return function


@pytest.mark.parametrize("step", [0, 3, 10])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_derivatives_by_parameters_gradients_and_state(options, step):
    function = step_from(step, options)
    inputs = tuple(values(3, seed=seed) for seed in range(6))
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs, atol=1e-4)


def test_derivatives_of_a_step_of_0_d_and_empty_parameters():
    for shape in ((), (0,)):
        assert gradcheck(step_from(3, VARIANTS["decoupled"]), tuple(values(*shape, seed=seed) for seed in range(6)))


def test_a_wrong_derivative_is_seen():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 1.01

    function = step_from(3, {})
    inputs = tuple(values(3, seed=seed) for seed in range(6))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(lambda p, g, *state: function(p, Wrong.apply(g), *state), inputs)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_derivatives_of_many_steps_by_learning_rate_betas_and_decay(options):
    decays = bool(options.get("weight_decay"))

    def trained(lr, beta1, beta2, decay):
        p = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        numbers = {"lr": lr, "betas": (beta1, beta2)} | ({"weight_decay": decay} if decays else {})
        optimizer = AdaBelief([p], differentiable=True, **{**OPTIONS, **options, **numbers})
        # Across the switch of rectification.
        for t in range(8):
            p.grad = p * torch.tensor([1.0, 2.0, 3.0], dtype=p.dtype) + torch.sin(torch.tensor(1.7 * t))
            optimizer.step()
        return p

    numbers = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.1, 0.9, 0.99, 0.1)]
    if not decays:
        numbers[-1].requires_grad_(False)
    assert gradcheck(trained, tuple(numbers))


def test_derivatives_are_finite_from_the_first_step_on():
    lr = torch.tensor(0.1, requires_grad=True)
    p = torch.tensor([0.0, 1.0])
    optimizer = AdaBelief([p], lr=lr, rectify=True, differentiable=True)
    for _ in range(10):
        p.grad = 2 * p
        optimizer.step()
    (derivative,) = torch.autograd.grad(p.square().sum(), lr)
    assert derivative.isfinite()
    assert derivative != 0
