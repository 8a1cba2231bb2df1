"""A run out of PyTorch and into it."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch_distributed import OPTIONS, WORLD, assert_same, network, steps

from adabelief_core.parity import DTYPES, check, covering
from adabelief_core.portable import Entry, Snapshot
from adabelief_torch import AdaBelief, restore, snapshot
from adabelief_torch._parity import adapter

MODES = {mode.name: mode for mode in adapter.modes() if mode.device == "cpu" and not mode.slow}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_a_run_through_a_file_after_every_step_has_the_bits_of_one_that_stays(mode, dtype, tmp_path):
    for problem in covering(dtype, steps=3, tensors=("scalar", "empty", "strided", "nonfinite")):
        result = check(MODES[mode], problem, through=tmp_path / "run")
        assert (result.differing, result.first) == (0, ""), problem.name


def trained(model, count=2, **options):
    optimizer = AdaBelief(model.parameters(), **options)
    steps(optimizer, count)
    return optimizer


def moved(optimizer, model, taken, **options):
    """The run in a new model and optimizer."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    fresh = AdaBelief(other.parameters(), **options)
    restore(fresh, other.named_parameters(), taken)
    return fresh


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_restored_optimizer_goes_on_as_the_old_one(dtype):
    model = network(dtype)
    optimizer = trained(model, **OPTIONS)
    other = moved(optimizer, model, snapshot(optimizer, model.named_parameters()), **OPTIONS)
    assert_same(other, optimizer)
    for one in (optimizer, other):
        steps(one, 4, start=2)
    assert_same(other, optimizer)


def test_a_snapshot_holds_copies():
    model = network()
    optimizer = trained(model)
    taken = snapshot(optimizer, model.named_parameters())
    before = {name: (entry.p.copy(), entry.m.copy()) for name, entry in taken.entries.items()}
    steps(optimizer, 1)
    for name, (p, m) in before.items():
        np.testing.assert_array_equal(taken.entries[name].p, p)
        np.testing.assert_array_equal(taken.entries[name].m, m)


def test_a_parameter_that_has_taken_no_step_has_none_afterwards():
    model = network()
    optimizer = AdaBelief(model.parameters(), weight_decay=0.1, fixed_decay=True)
    taken = snapshot(optimizer, model.named_parameters())
    assert {entry.step for entry in taken.entries.values()} == {0}
    assert not any(entry.m.any() or entry.s.any() for entry in taken.entries.values())
    other = moved(optimizer, model, taken, weight_decay=0.1, fixed_decay=True)
    assert not other.state
    for one in (optimizer, other):
        steps(one, 2)
    assert_same(other, optimizer)


def test_groups_have_hyperparameters_of_their_own():
    model = network()
    groups = [
        {"params": [*model[0].parameters()], "lr": 0.5},
        {"params": [*model[2].parameters()], "betas": (0.5, 0.9)},
    ]
    optimizer = AdaBelief(groups, lr=0.1)
    steps(optimizer, 1)
    taken = snapshot(optimizer, model.named_parameters())
    assert (taken.entries["0.weight"].h.lr, taken.entries["2.weight"].h.lr) == (0.5, 0.1)
    with pytest.raises(ValueError, match=r"Invalid betas: \(0.9, 0.999\) \(expected \(0.5, 0.9\).*'2.weight'"):
        restore(AdaBelief(model.parameters()), model.named_parameters(), taken)


def test_a_learning_rate_as_a_tensor():
    model = network()
    optimizer = trained(model, lr=torch.tensor(0.25))
    taken = snapshot(optimizer, model.named_parameters())
    assert taken.hyperparameters.lr == 0.25
    assert_same(moved(optimizer, model, taken, lr=torch.tensor(0.25)), optimizer)


def test_memory_format_and_device_stay_those_of_the_parameter():
    model = torch.nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
    optimizer = trained(model)
    other = moved(optimizer, model, snapshot(optimizer, model.named_parameters()))
    (weight, _) = other.param_groups[0]["params"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert other.state[weight]["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    assert_same(other, optimizer)


def partial(taken, name):
    return Snapshot({key: entry for key, entry in taken.entries.items() if key != name})


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda taken: partial(taken, "0.bias"), {}, "none of the snapshot, '0.bias' of the optimizer"),
        (lambda taken: Snapshot({**taken.entries, "x": taken.entries["0.bias"]}), {}, "'x' of the snapshot"),
        (
            lambda taken: Snapshot({**taken.entries, "0.bias": Entry(1, *[np.ones(2, "f4")] * 3)}),
            {},
            r"'0.bias' is float32 of shape \[2\] \(expected float32 of shape \[7\]",
        ),
        (
            lambda taken: Snapshot({**taken.entries, "0.bias": Entry(1, *[np.ones(7)] * 3)}),
            {},
            "'0.bias' is float64 .*expected float32",
        ),
        (lambda taken: taken, {"amsgrad": True}, "has no v, which amsgrad=True needs"),
        (lambda taken: taken, {"kahan_sum": True}, "has no k, which kahan_sum=True needs"),
        (lambda taken: taken, {"eps": 1e-8}, "Invalid eps: 1e-08"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(change, options, message):
    model = network()
    optimizer = trained(model)
    taken = change(snapshot(optimizer, model.named_parameters()))
    other = trained(network(), 1, **options)
    before = copy.deepcopy(other)
    with pytest.raises(ValueError, match=message):
        restore(other, zip(dict(model.named_parameters()), other.param_groups[0]["params"], strict=True), taken)
    assert_same(other, before)


def test_parameters_without_a_name_or_with_two():
    model = network()
    optimizer = trained(model)
    names = list(model.named_parameters())
    with pytest.raises(ValueError, match=r"no name for param_groups\[0\]\['params'\]\[3\]"):
        snapshot(optimizer, names[:3])
    with pytest.raises(ValueError, match=r"'0.weight' and 'tied' are one parameter"):
        snapshot(optimizer, [*names, ("tied", names[0][1])])


# In many processes


def shared(dtype):
    model = network(dtype)
    fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))
    return model


def taken_from_shards(path, dtype):
    """Each process takes the whole run; the first saves it."""
    model = shared(dtype)
    optimizer = trained(model, kahan_sum=True, **OPTIONS)
    taken = snapshot(optimizer, model.named_parameters())
    if dist.get_rank() == 0:
        taken.save(path)


def put_into_shards(path, dtype):
    """No process communicates; all go on with the bits of one that never moved."""
    model = shared(dtype)
    optimizer = AdaBelief(model.parameters(), kahan_sum=True, **OPTIONS)
    restore(optimizer, model.named_parameters(), Snapshot.load(path))
    steps(optimizer, 3, start=2)
    assert all(
        isinstance(x, DTensor) for state in optimizer.state.values() for key, x in state.items() if key != "step"
    )
    single = trained(network(dtype), 5, kahan_sum=True, **OPTIONS)
    assert_same(optimizer, single)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shards(two, dtype, tmp_path):
    path = tmp_path / "run"
    two.run(taken_from_shards, path, dtype)
    single = trained(network(dtype), kahan_sum=True, **OPTIONS)
    assert_same(moved(single, network(dtype), Snapshot.load(path), kahan_sum=True, **OPTIONS), single)
    two.run(put_into_shards, path, dtype)
