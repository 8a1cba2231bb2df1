"""What torch's own tests ask of an optimizer's step, asked of AdaBelief's in each of its ways."""

import pytest
import torch
from torch_conformance import INFO, INPUTS, build, each_config, each_input, give_grads, leaves, steps
from torch_helpers import assert_same

from adabelief_torch import AdaBelief

PATHS = INFO.supported_impls
DTYPES = [torch.float32, torch.bfloat16, torch.complex64]
DEFAULT = INPUTS[0]


class Descent:
    """A linear model whose output shall vanish: what an optimizer makes of it in 25 steps."""

    def __init__(self, given, **options):
        self.params = leaves(given, shapes=((10, 5), (10,)))
        self.optimizer = build(self.params, given, **options)
        self.x = torch.randn(5, generator=torch.Generator().manual_seed(1))

    def loss(self):
        """The loss; the parameters' gradients are set."""
        copies = [p.detach().clone().requires_grad_() for p in self.params]
        loss = (copies[0].mv(self.x) + copies[1]).square().sum()
        loss.backward()
        for p, copy in zip(self.params, copies, strict=True):
            p.grad = copy.grad
        return loss.detach()

    def run(self, schedulers=()):
        """First and last loss."""
        first = self.loss()
        for _ in range(25):
            loss = self.optimizer.step(self.loss)
            for scheduler in schedulers:
                takes_a_metric = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                scheduler.step(*([loss] if takes_a_metric else []))
        return first, self.loss()

    def assert_right_direction(self, *schedulers):
        first, last = self.run(schedulers)
        if self.optimizer.param_groups[0]["maximize"]:
            assert last > first
        else:
            assert last < first


@each_config
def test_it_goes_in_the_right_direction(given):
    Descent(given).assert_right_direction()


def test_the_test_of_the_direction_sees_the_wrong_one():
    descent = Descent(DEFAULT)
    descent.optimizer.param_groups[0]["lr"] = 0.0
    with pytest.raises(AssertionError):
        descent.assert_right_direction()
    wrong = Descent(DEFAULT)
    right = wrong.loss
    wrong.loss = lambda: -right()
    with pytest.raises(AssertionError):
        wrong.assert_right_direction()


LEARNING_RATES = [0.01, torch.tensor(0.01), torch.tensor([0.01]), torch.tensor([[[0.01]]])]


@pytest.mark.parametrize("schedulers", range(len(INFO.scheduler_inputs)))
@pytest.mark.parametrize("lr", LEARNING_RATES, ids=lambda lr: str(getattr(lr, "shape", "number")))
def test_it_goes_in_the_right_direction_under_each_scheduler_of_adam_and_adamw(lr, schedulers):
    lr = lr.clone() if isinstance(lr, torch.Tensor) else lr
    descent = Descent(DEFAULT, lr=lr)
    made = [make(descent.optimizer) for make in INFO.scheduler_inputs[schedulers]]
    descent.assert_right_direction(*made)
    if isinstance(lr, torch.Tensor):
        # The scheduler fills the tensor.
        assert descent.optimizer.param_groups[0]["lr"] is lr
        assert lr.shape == descent.optimizer.param_groups[0]["initial_lr"].shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("path", PATHS)
@each_input
def test_each_path_has_the_bits_of_the_for_loop(given, path, dtype):
    options = {flag: flag == path for flag in PATHS}
    params, others = leaves(given, dtype), leaves(given, dtype)
    for p in params:
        p.requires_grad_(path != "differentiable")
    optimizer = build(params, given, **options)
    other = build(others, given, foreach=False)
    steps(optimizer, params, 8)
    steps(other, others, 8)
    assert_same(optimizer, other)


@pytest.mark.parametrize("path", [{"foreach": False}, {"foreach": True}, {"fused": True}, {"differentiable": True}])
@each_input
def test_a_complex_number_is_a_pair_of_reals(given, path):
    params = [p.detach() for p in leaves(given, torch.complex64)]
    pairs = [torch.view_as_real(p).clone() for p in params]
    optimizer, other = build(params, given, **path), build(pairs, given, **path)
    for t in range(8):
        give_grads(params, t)
        for p, pair in zip(params, pairs, strict=True):
            pair.grad = torch.view_as_real(p.grad).clone()
        optimizer.step()
        other.step()
    for p, pair in zip(params, pairs, strict=True):
        assert torch.equal(torch.view_as_real(p), pair)
        assert torch.equal(torch.view_as_real(optimizer.state[p]["exp_avg_var"]), other.state[pair]["exp_avg_var"])


@each_config
def test_a_group_of_parameters_of_several_dtypes_has_the_bits_of_each_by_itself(given):
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.complex64]
    params = [leaves(given, dtype, shapes=((5, 3),))[0] for dtype in dtypes]
    others = [leaves(given, dtype, shapes=((5, 3),))[0] for dtype in dtypes]
    optimizer = build(params, given)
    alone = [build([p], given) for p in others]
    for t in range(7):
        for one in (params, others):
            give_grads(one, t)
        for each in (optimizer, *alone):
            each.step()
    for p, q, other in zip(params, others, alone, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(optimizer.state[p]["exp_avg_var"], other.state[q]["exp_avg_var"])


@each_config
def test_gradients_are_only_read(given):
    params = leaves(given)
    optimizer = build(params, given)
    for t in range(7):
        give_grads(params, t)
        grads = [(p.grad, p.grad.clone(), p.grad._version) for p in params]
        optimizer.step()
        for p, (g, values, version) in zip(params, grads, strict=True):
            assert p.grad is g
            assert torch.equal(g, values)
            assert g._version == version


@each_config
def test_without_gradients_nothing_happens(given):
    params = leaves(given)
    before = [p.detach().clone() for p in params]
    optimizer = build(params, given)
    optimizer.step()
    assert not optimizer.state
    assert all(map(torch.equal, params, before))


@each_config
def test_zero_gradients_change_nothing_but_what_decays(given):
    params = leaves(given)
    before = [p.detach().clone() for p in params]
    optimizer = build(params, given)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    same = all(map(torch.equal, params, before))
    assert same is (optimizer.param_groups[0]["weight_decay"] == 0)


@each_config
def test_empty_parameters_are_stepped(given):
    params = leaves(given, shapes=((0,), (4, 0, 2)))
    optimizer = build(params, given)
    steps(optimizer, params, 2)
    assert [state["step"].item() for state in optimizer.state.values()] == [2.0, 2.0]


@each_config
def test_a_closure_runs_with_gradients_under_no_grad(given):
    params = leaves(given)
    optimizer = build(params, given)
    seen = []

    def closure():
        seen.append(torch.is_grad_enabled())
        give_grads(params, 0)
        return 1.5

    with torch.no_grad():
        assert optimizer.step(closure) == 1.5
        assert not torch.is_grad_enabled()
    assert seen == [True]


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
@each_config
def test_options_of_a_group_are_its_own(given, name):
    params, others = leaves(given), leaves(given)
    value = 0.25
    optimizer = build([{"params": params[:1], name: value}, {"params": params[1:]}], given)
    changed, plain = build(others[:1], given, **{name: value}), build(others[1:], given)
    for t in range(3):
        for one in (params, others):
            give_grads(one, t)
        for each in (optimizer, changed, plain):
            each.step()
    assert all(map(torch.equal, params, others))


@pytest.mark.parametrize("capturable", [False, True])
def test_paths_may_be_changed_in_a_group_later(capturable):
    params, others = leaves(DEFAULT), leaves(DEFAULT)
    optimizer, other = build(params, DEFAULT, amsgrad=True), build(others, DEFAULT, amsgrad=True)
    paths = [{"foreach": True}, {"fused": True}, {"foreach": False}, {"capturable": capturable}, {"fused": False}, {}]
    for t, path in enumerate(paths * 2):
        optimizer.param_groups[0].update({"foreach": None, "fused": None, "capturable": False, **path})
        steps(optimizer, params, 1, start=t)
        steps(other, others, 1, start=t)
        assert_same(optimizer, other)


@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"foreach": False}, {"fused": True}])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_tensors_as_numbers_have_the_bits_of_numbers(path, shape):
    # AdamW asserts that a CPU has nothing to capture; the steps of `capturable` are the same here.
    numbers = {"lr": 0.125, "betas": (0.875, 0.96875), "weight_decay": 0.0625}
    filled = {key: torch.full(shape, numbers[key]) for key in ("lr", "weight_decay")}
    tensors = {**filled, "betas": tuple(torch.full(shape, beta) for beta in numbers["betas"])}
    others = leaves(DEFAULT)
    other = AdaBelief(others, rectify=True, **numbers)
    steps(other, others, 12)
    for capturable in (False, True):
        if path.get("foreach") and not capturable:
            continue
        params = leaves(DEFAULT)
        optimizer = AdaBelief(params, rectify=True, capturable=capturable, **path, **tensors)
        steps(optimizer, params, 12)
        assert_same(optimizer, other)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("path", [{}, {"foreach": False}, {"fused": True}])
def test_a_tensor_that_no_longer_holds_a_learning_rate_is_refused_before_anything_changes(path, capturable):
    params = leaves(DEFAULT)
    lr = torch.tensor(0.1)
    optimizer = AdaBelief(params, lr=lr, capturable=capturable, **path)
    lr.fill_(-1.0)
    give_grads(params, 0)
    with pytest.raises(ValueError, match=r"Invalid learning rate: -1\.0"):
        optimizer.step()
    assert not optimizer.state
