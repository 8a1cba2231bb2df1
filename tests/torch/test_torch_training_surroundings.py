"""What surrounds a step must not change it: default devices and dtypes, inference mode, threads, forked processes."""

import copy
import multiprocessing
import threading

import pytest
import torch
from torch import nn
from torch_rule import Rule

from adabelief_core.parity import compare
from adabelief_torch import AdaBelief
from adabelief_torch._memory import MOMENTS
from adabelief_torch._parity import to_array

PATHS = pytest.mark.parametrize("path", [{}, {"foreach": True}, {"foreach": False}, {"fused": True}], ids=str)
OPTIONS = {"weight_decay": 0.1, "amsgrad": True, "kahan_sum": True}


def begin(params, **path):
    return AdaBelief(params, lr=0.01, **OPTIONS, **path), Rule(params)


def give_grads(params, t):
    for p in params:
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t))


def run(params, optimizer, rule, count=2, start=0):
    """Steps beside the rule."""
    for t in range(start, start + count):
        give_grads(params, t)
        rule.step(0.01, **OPTIONS)
        optimizer.step()
        rule.check(optimizer)


@pytest.fixture(params=["meta", "float64"])
def default(request):
    """Another default device or dtype."""
    if request.param == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(torch.float64)
    yield request.param
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("capturable", [False, True])
@PATHS
def test_default_devices_and_dtypes_do_not_reach_the_state(path, capturable, default):
    params = [nn.Parameter(torch.ones(3, dtype=dtype, device="cpu")) for dtype in (torch.float32, torch.bfloat16)]
    optimizer, rule = begin(params, capturable=capturable, **path)

    def run_here(start):
        for t in range(start, start + 3):
            for p in params:
                p.grad = torch.full((3,), 0.5 - t, dtype=p.dtype, device="cpu")
            rule.step(0.01, **OPTIONS)
            optimizer.step()
            rule.check(optimizer)

    run_here(0)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["step"] = 3
    optimizer.load_state_dict(saved)
    run_here(3)
    for state in optimizer.state.values():
        assert {(x.dtype, x.device.type) for x in state.values()} == {(torch.float32, "cpu")}
        assert set(state) == {"step", *MOMENTS}


@PATHS
@pytest.mark.parametrize("strided", [False, True])
def test_a_state_that_began_in_inference_mode_goes_on_outside_of_it(path, strided):
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    params = [nn.Parameter(x[:, ::2] if strided else x)]
    optimizer, rule = begin(params, **path)
    with torch.inference_mode():
        run(params, optimizer, rule)
    assert not any(x.is_inference() for x in optimizer.state[params[0]].values())
    run(params, optimizer, rule, start=2)


def large(seed=0):
    """More elements than one thread works on."""
    return [nn.Parameter(torch.randn(n, generator=torch.Generator().manual_seed(seed))) for n in (150_000, 90_000)]


def test_two_threads_step_two_optimizers():
    jobs = []
    for seed in range(2):
        params = large(seed)
        jobs.append((params, *begin(params)))
    errors = []

    def work(params, optimizer, rule):
        try:
            run(params, optimizer, rule, count=4)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert jobs[0][1].state[jobs[0][0][0]]["step"] == 4


def in_a_fork(work):
    """What `work` returns in a forked process, which must not hang."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(work()))
    child.start()
    try:
        assert receiver.poll(60), "the child process hangs"
        result = receiver.recv()
        child.join(60)
        assert child.exitcode == 0
    finally:
        if child.is_alive():
            child.kill()
            child.join()
    return result


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("path", [{}, {"fused": True}], ids=str)
def test_a_forked_process_goes_on_with_threads_of_its_own(path):
    params = large()
    optimizer, rule = begin(params, **path)
    # The threads are there when the process is forked.
    run(params, optimizer, rule, count=1)
    give_grads(params, 1)

    def work():
        optimizer.step()
        return [to_array(p) for p in params]

    theirs = in_a_fork(work)
    rule.step(0.01, **OPTIONS)
    assert all(compare(x, p).count == 0 for x, p in zip(theirs, rule.p, strict=True))
    # And on this side.
    optimizer.step()
    rule.check(optimizer)
