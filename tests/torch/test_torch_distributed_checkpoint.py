"""torch.distributed.checkpoint: runs that change the number of their processes go on bit for bit."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch_distributed import OPTIONS, WORLD, assert_same, network, steps

from adabelief_torch import AdaBelief

if not dist.is_gloo_available():
    pytest.skip("needs gloo", allow_module_level=True)

# Torch's word that a single process saves and loads.
pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled, unavailable or uninitialized:UserWarning"
)

BEFORE, AFTER = 4, 5
"""Steps before and after the move; rectification begins in those after."""
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
KINDS = pytest.mark.parametrize(
    "options",
    [StateDictOptions(), StateDictOptions(flatten_optimizer_state_dict=True)],
    ids=["nested", "flat"],
)


def built(dtype, shared, **options):
    """A model and its optimizer; in two processes if it is shared."""
    model = network(dtype)
    if shared:
        fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))
    return model, AdaBelief(model.parameters(), **options)


def saved(path, dtype, shared, options):
    """Train, and save."""
    model, optimizer = built(dtype, shared, kahan_sum=True, **OPTIONS)
    steps(optimizer, BEFORE)
    model_state, optimizer_state = get_state_dict(model, optimizer, options=options)
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=path)


def resumed(path, dtype, shared, options):
    """Load into new ones, whose options are others, go on, and compare with the run that never stopped."""
    model, optimizer = built(dtype, shared, kahan_sum=True, amsgrad=True, lr=1.0)
    model_state, optimizer_state = get_state_dict(model, optimizer, options=options)
    dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=path)
    set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state, options=options)
    _, single = built(dtype, False, kahan_sum=True, **OPTIONS)
    steps(single, BEFORE)
    assert_same(optimizer, single)
    for t in range(BEFORE, BEFORE + AFTER):
        steps(optimizer, 1, t)
        steps(single, 1, t)
        assert_same(optimizer, single)


@KINDS
@DTYPES
def test_from_two_processes_to_one(two, tmp_path, dtype, options):
    two.run(saved, tmp_path, dtype, True, options)
    resumed(tmp_path, dtype, False, options)


@KINDS
@DTYPES
def test_from_one_process_to_two(two, tmp_path, dtype, options):
    saved(tmp_path, dtype, False, options)
    two.run(resumed, tmp_path, dtype, True, options)


def through_whole_states(dtype):
    """What the first process gathers on the host goes to all."""
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    model, optimizer = built(dtype, True, **OPTIONS)
    steps(optimizer, BEFORE)
    states = get_state_dict(model, optimizer, options=whole)
    new_model, new = built(dtype, True, amsgrad=True)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    given = states if dist.get_rank() == 0 else ({}, {})
    set_model_state_dict(new_model, given[0], options=options)
    set_optimizer_state_dict(new_model, new, given[1], options=options)
    _, single = built(dtype, False, **OPTIONS)
    steps(single, BEFORE)
    assert_same(new, single)
    steps(new, AFTER, BEFORE)
    steps(single, AFTER, BEFORE)
    assert_same(new, single)


@DTYPES
def test_whole_states_from_the_first_process_reach_all(two, dtype):
    two.run(through_whole_states, dtype)


def test_a_fresh_optimizer_leaves_the_parameters_where_torch_makes_it_begin_a_state():
    # Torch takes a step with gradients and a learning rate of 0 for it.
    model, optimizer = built(torch.float32, False, weight_decay=0.1, fixed_decay=True)
    before = [p.detach().clone() for p in model.parameters()]
    get_state_dict(model, optimizer)
    assert len(optimizer.state) == len(before)
    assert all(torch.equal(p, x) for p, x in zip(model.parameters(), before, strict=True))
