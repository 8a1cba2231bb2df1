"""What a step does, and what copies of an optimizer keep."""

import copy
import doctest
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch_helpers import OPTIONS, PATHS, assert_same, give_grads, parameter, steps

import adabelief_torch._optimizer
from adabelief_torch import AdaBelief


def test_doctest():
    result = doctest.testmod(adabelief_torch._optimizer)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_state_is_made_at_the_first_step_in_the_rules_dtype(dtype):
    p = parameter(3, 4, dtype=dtype)
    optimizer = AdaBelief([p], amsgrad=True)
    assert not optimizer.state
    steps(optimizer, 2)
    state = optimizer.state[p]
    assert list(state) == ["step", "exp_avg", "exp_avg_var", "max_exp_avg_var"]
    assert state["step"].dtype is torch.float32
    assert state["step"].shape == ()
    assert state["step"] == 2
    for key in ("exp_avg", "exp_avg_var", "max_exp_avg_var"):
        assert state[key].dtype is (torch.complex64 if dtype.is_complex else torch.float32)
        assert not state[key].requires_grad


def test_moments_have_the_parameters_memory_format():
    p = torch.nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
    optimizer = AdaBelief([p])
    steps(optimizer, 1)
    assert optimizer.state[p]["exp_avg"].stride() == p.stride()


@PATHS
def test_parameters_change_in_place_and_gradients_are_only_read(foreach):
    for options in ({}, {**OPTIONS, "weight_decouple": False}):
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            p = parameter(5, 3, dtype=dtype)
            optimizer = AdaBelief([p], lr=1.0, foreach=foreach, **options)
            give_grads(optimizer, 0)
            g, kept, before = p.grad, p.grad.clone(), p.detach().clone()
            places, versions = (p.data_ptr(), g.data_ptr()), (p._version, g._version)
            optimizer.step()
            assert p.grad is g
            assert torch.equal(g, kept)
            assert (p.data_ptr(), g.data_ptr()) == places
            assert p._version > versions[0]
            assert g._version == versions[1]
            assert not torch.equal(p, before)
            assert p.requires_grad
            assert p.is_leaf


@PATHS
def test_autograd_notices_that_a_saved_parameter_has_changed(foreach):
    p = parameter(3)
    loss = p.square().sum()
    optimizer = AdaBelief([p], foreach=foreach)
    give_grads(optimizer, 0)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_parameters_without_gradient_stay_and_begin_no_state():
    p, q = parameter(3), parameter(3)
    optimizer = AdaBelief([p, q])
    q.grad = torch.ones(3)
    before = p.detach().clone()
    optimizer.step()
    assert torch.equal(p, before)
    assert list(optimizer.state) == [q]


def test_steps_count_for_each_parameter_by_itself():
    p, q, alone = parameter(3), parameter(3), parameter(3)
    optimizer, other = AdaBelief([p, q]), AdaBelief([alone])
    p.grad = torch.ones(3)
    optimizer.step()
    optimizer.step()
    q.grad, alone.grad = torch.ones(3), torch.ones(3)
    optimizer.step()
    other.step()
    assert torch.equal(q, alone)
    assert optimizer.state[p]["step"] == 3


@PATHS
def test_a_gradient_with_a_graph_behind_it_is_read(foreach):
    p, q = parameter(3), parameter(3)
    p.square().sum().backward()
    optimizer, other = AdaBelief([p], foreach=foreach), AdaBelief([q], foreach=foreach)
    q.grad = (2 * q).clone()
    assert q.grad.requires_grad
    optimizer.step()
    other.step()
    assert torch.equal(p, q)


@PATHS
def test_lazily_conjugated_and_negated_gradients_are_read_as_they_are(foreach):
    p, q = parameter(3, dtype=torch.complex64), parameter(3, dtype=torch.complex64)
    r, s = parameter(3), parameter(3)
    z = torch.randn(3, dtype=torch.complex64)
    p.grad, q.grad = z.conj(), z.conj().resolve_conj()
    r.grad, s.grad = z.conj().imag, z.conj().imag.resolve_neg()
    assert p.grad.is_conj()
    assert r.grad.is_neg()
    AdaBelief([p, q, r, s], foreach=foreach).step()
    assert torch.equal(p, q)
    assert torch.equal(r, s)


def test_a_half_precision_parameter_may_gather_its_gradient_in_float32():
    if not hasattr(torch.Tensor, "grad_dtype"):
        pytest.skip("this torch has no grad_dtype")
    p, q = parameter(3, dtype=torch.bfloat16), parameter(3, dtype=torch.bfloat16)
    p.grad_dtype = torch.float32
    q.grad = torch.randn(3).bfloat16()
    p.grad = q.grad.float()
    AdaBelief([p, q]).step()
    assert torch.equal(p, q)


def test_closure_is_called_once_with_gradients_and_its_loss_returned():
    p = parameter(3)
    optimizer = AdaBelief([p])
    calls = []

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == [True]
    assert loss.item() > 0
    assert optimizer.step() is None


def test_steps_in_inference_mode_and_under_no_grad_are_the_same():
    optimizers = [AdaBelief([parameter(3)], **OPTIONS) for _ in range(2)]
    for optimizer, mode in zip(optimizers, (torch.inference_mode, torch.no_grad), strict=True):
        for t in range(3):
            give_grads(optimizer, t)
            with mode():
                optimizer.step()
    assert_same(*optimizers)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_keep_options_and_state_and_go_on_alike(duplicate):
    optimizer = AdaBelief([parameter(3, 4), parameter(5, dtype=torch.bfloat16)], **OPTIONS)
    steps(optimizer, 7)
    twin = duplicate(optimizer)
    assert {k: v for k, v in twin.param_groups[0].items() if k in OPTIONS} == OPTIONS
    steps(optimizer, 3, start=7)
    steps(twin, 3, start=7)
    assert_same(optimizer, twin)
    assert optimizer.param_groups[0]["params"][0].data_ptr() != twin.param_groups[0]["params"][0].data_ptr()


def test_a_whole_optimizer_goes_through_torch_save():
    optimizer = AdaBelief([parameter(3)], **OPTIONS)
    steps(optimizer, 2)
    file = io.BytesIO()
    torch.save(optimizer, file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    steps(optimizer, 2, start=2)
    steps(twin, 2, start=2)
    assert_same(optimizer, twin)


def test_moving_a_parameter_is_noticed():
    p, q = parameter(4, 3), parameter(4, 3)
    optimizer, other = AdaBelief([p]), AdaBelief([q])
    steps(optimizer, 1)
    steps(other, 1)
    p.data = p.detach().clone()
    optimizer.state[p]["exp_avg"] = optimizer.state[p]["exp_avg"].clone()
    place = p.data_ptr()
    steps(optimizer, 2, start=1)
    steps(other, 2, start=1)
    assert p.data_ptr() == place
    assert_same(optimizer, other)
    p.data = torch.empty(3, 4).t().copy_(p.detach())
    assert not p.is_contiguous()
    steps(optimizer, 1, start=3)
    steps(other, 1, start=3)
    assert_same(optimizer, other)


def test_tensors_of_a_subclass_are_left_to_their_own_operations():
    class Plain(torch.Tensor):
        def numpy(self):
            raise AssertionError("not in this process's memory, it might be")

    p, q = parameter(3), parameter(3)
    wrapped = p.detach().as_subclass(Plain).requires_grad_()
    wrapped.grad, q.grad = torch.ones(3).as_subclass(Plain), torch.ones(3)
    AdaBelief([wrapped]).step()
    AdaBelief([q]).step()
    assert torch.allclose(wrapped.as_subclass(torch.Tensor), q, rtol=1e-6)


def test_large_foreach_steps_go_in_chunks(monkeypatch):
    monkeypatch.setattr("adabelief_torch._tensors._CHUNK", 10)
    shapes = [(4,), (4,), (4,), (30,), (1,)]
    optimizer, other = (AdaBelief([parameter(*s) for s in shapes], foreach=f) for f in (True, None))
    steps(optimizer, 3)
    steps(other, 3)
    assert_same(optimizer, other)


def test_the_number_of_threads_is_torchs(monkeypatch):
    seen = []
    monkeypatch.setattr("adabelief_torch._execute.update_inplace", lambda jobs, threads: seen.append(threads))
    steps(AdaBelief([parameter(3)]), 1)
    assert seen == [torch.get_num_threads()]


def test_no_other_framework_is_imported():
    others = {"tensorflow", "keras", "jax", "optax", "adabelief_tf", "adabelief_jax"}
    code = f"import adabelief_torch, sys; print(*({others} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert child.stdout.split() == []
