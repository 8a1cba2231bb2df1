"""Parameters that two processes share: the bits of one process given the same gradients, and nothing gathered."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch_distributed import (
    OPTIONS,
    SHAPES,
    WORLD,
    assert_same,
    gradients,
    network,
    steps,
    two_dimensional,
    whole,
)

from adabelief_torch import AdaBelief

if not dist.is_gloo_available():
    pytest.skip("needs gloo", allow_module_level=True)

VARIANTS = [
    {},
    OPTIONS,
    {"weight_decay": 0.1, "weight_decouple": False, "maximize": True},
    {"weight_decay": 0.01, "fixed_decay": True, "kahan_sum": True},
]
PATHS = [{}, {"foreach": True}, {"foreach": False}, {"foreach": True, "capturable": True}]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]


def mesh():
    return init_device_mesh("cpu", (WORLD,))


def sharded(dtype, dim=0, mesh=mesh):
    """Parameters and those that two processes share of them."""
    params = [torch.nn.Parameter(g.to(dtype)) for g in gradients(SHAPES, 100)]
    one = mesh()
    placements = [Replicate()] * (one.ndim - 1)
    shares = []
    for p in params:
        parts = distribute_tensor(p.detach(), one, [*placements, Shard(min(dim, p.ndim - 1))], src_data_rank=None)
        shares.append(torch.nn.Parameter(parts))
    return params, shares


def shared_steps(dtype, fused):
    paths = [*PATHS, {"fused": True}] if fused else PATHS
    for variant in VARIANTS:
        for path in paths:
            params, shares = sharded(dtype)
            ours, single = AdaBelief(shares, **variant, **path), AdaBelief(params, **variant, **path)
            # Across the switch of rectification.
            steps(ours, 7)
            steps(single, 7)
            assert_same(ours, single)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_path_has_the_bits_of_one_process(two, dtype):
    two.run(shared_steps, dtype, bool(pytest.importorskip("numba")))


def other_shares():
    for dim, where in ((1, mesh), (0, two_dimensional)):
        params, shares = sharded(torch.float32, dim, where)
        ours, single = AdaBelief(shares, **OPTIONS), AdaBelief(params, **OPTIONS)
        steps(ours, 3)
        steps(single, 3)
        assert_same(ours, single)


def test_other_dimensions_and_meshes_have_the_bits_of_one_process(two):
    two.run(other_shares)


def one_ulp_off(key, rank):
    params, shares = sharded(torch.float32)
    ours, single = AdaBelief(shares), AdaBelief(params)
    steps(ours, 1)
    steps(single, 1)
    if dist.get_rank() == rank:
        p = shares[0]
        bits = (p if key == "p" else ours.state[p][key]).detach().to_local().view(torch.int32)
        bits[-1, -1] += 1
    assert_same(ours, single)


@pytest.mark.parametrize("rank", range(WORLD))
@pytest.mark.parametrize("key", ["p", "exp_avg", "exp_avg_var"])
def test_one_ulp_in_one_process_is_seen(two, key, rank):
    with pytest.raises(AssertionError, match=f"^rank {rank}: (.*\n)*AssertionError\n$"):
        two.run(one_ulp_off, key, rank)


def train(model, single, apply, inputs=5):
    """Train a model and a copy in one process on the gradients that the model gets."""
    from torch.distributed.tensor.debug import CommDebugMode

    ours, theirs = AdaBelief(model.parameters(), **OPTIONS), AdaBelief(single.parameters(), **OPTIONS)
    for t in range(7):
        ours.zero_grad()
        apply(model, gradients([(4, inputs)], t)[0]).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for p, q in zip(model.parameters(), single.parameters(), strict=True):
            q.grad = whole(p.grad)
        with CommDebugMode() as communication:
            ours.step()
        assert communication.get_total_counts() == 0
        theirs.step()
        assert_same(ours, theirs)
    return ours


def fully_sharded(dtype, policy):
    model = network(dtype)
    fully_shard(model[0], mesh=mesh(), mp_policy=policy)
    fully_shard(model, mesh=mesh(), mp_policy=policy)
    optimizer = train(model, network(dtype), lambda model, x: model(x.to(dtype)))
    (p, *_), state = model.parameters(), optimizer.state
    for key in ("exp_avg", "exp_avg_var", "max_exp_avg_var"):
        assert state[p][key].to_local().shape == p.to_local().shape != p.shape


@pytest.mark.parametrize(
    ("dtype", "policy"),
    [
        (torch.float32, MixedPrecisionPolicy()),
        (torch.float32, MixedPrecisionPolicy(param_dtype=torch.bfloat16)),
        (torch.bfloat16, MixedPrecisionPolicy()),
    ],
)
def test_fsdp_steps_without_a_word_between_the_processes(two, dtype, policy):
    two.run(fully_sharded, dtype, policy)


def tensor_parallel():
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    # Each process has whole columns of the one and whole rows of the other.
    model, single = (torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Linear(8, 3)) for _ in range(2))
    with torch.no_grad():
        for p, q, g in zip(
            model.parameters(),
            single.parameters(),
            gradients(map(torch.Tensor.size, model.parameters()), 0),
            strict=True,
        ):
            p.copy_(g)
            q.copy_(g)
    parallelize_module(model, mesh(), {"0": ColwiseParallel(), "1": RowwiseParallel()})
    train(model, single, lambda model, x: model(x))


def test_tensor_parallel_layers_have_the_bits_of_one_process(two):
    two.run(tensor_parallel)


def partial_sums():
    params, shares = sharded(torch.float32)
    ours, single = AdaBelief(shares), AdaBelief(params)
    for p, q, g in zip(shares, params, gradients(SHAPES, 0), strict=True):
        # 2 g and -g, in all g.
        p.grad = DTensor.from_local(g * (-1 if dist.get_rank() else 2), p.device_mesh, [Partial()])
        q.grad = g
    ours.step()
    single.step()
    assert_same(ours, single)


def test_each_process_takes_its_part_of_a_gradient_that_lies_otherwise(two):
    two.run(partial_sums)


def scaled(fused):
    model = network()
    fully_shard(model, mesh=mesh())
    optimizer = AdaBelief(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for t in range(3):
        optimizer.zero_grad()
        scaler.scale(model(gradients([(4, 5)], t)[0]).square().sum()).backward()
        before = [whole(p).clone() for p in model.parameters()]
        if t == 1 and dist.get_rank() == 1:
            next(model.parameters()).grad.to_local()[-1, -1] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        stayed = [torch.equal(x, whole(p)) for x, p in zip(before, model.parameters(), strict=True)]
        # Also in the process whose own gradients are finite.
        assert stayed == [t == 1] * len(before)
        assert scaler.get_scale() == (8.0 if t < 1 else 4.0)


@pytest.mark.parametrize("fused", [None, True])
def test_an_infinite_gradient_in_one_process_stops_the_step_of_all(two, fused):
    if fused:
        pytest.importorskip("numba")
    two.run(scaled, fused)


def zero_redundancy(dtype, as_bucket_view):
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    model, single = network(dtype), network(dtype)
    replicas = DistributedDataParallel(model)

    def spread(params):
        return ZeroRedundancyOptimizer(params, AdaBelief, parameters_as_bucket_view=as_bucket_view, **OPTIONS)

    ours, theirs = spread(replicas.parameters()), AdaBelief(single.parameters(), **OPTIONS)
    for t in range(4):
        x = gradients([(4, 5)], 10 * t + dist.get_rank())[0].to(dtype)
        ours.zero_grad()
        replicas(x).square().sum().backward()
        for p, q in zip(model.parameters(), single.parameters(), strict=True):
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    # Each process has moments of its own parameters alone.
    assert 0 < len(ours.optim.state) < len(theirs.state)
    ours.consolidate_state_dict(to=0)
    box = [ours.state_dict() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)

    copy = network(dtype)
    copy.load_state_dict(model.state_dict())
    alone = AdaBelief(copy.parameters())
    alone.load_state_dict(box[0])
    assert_same(alone, theirs)

    again = network(dtype)
    again.load_state_dict(model.state_dict())
    resumed = spread(again.parameters())
    resumed.load_state_dict(box[0])
    steps(resumed, 3)
    steps(theirs, 3)
    for p, q in zip(again.parameters(), single.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("as_bucket_view", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_redundancy_has_the_bits_of_one_process_and_its_state_goes_on_anywhere(two, dtype, as_bucket_view):
    two.run(zero_redundancy, dtype, as_bucket_view)


def refused():
    (p, *_), (share, *_) = sharded(torch.float32)
    optimizer = AdaBelief([share])
    before = share.detach().to_local().clone()

    def refuses(error, words, call):
        with pytest.raises(error, match=words):
            call()
        assert torch.equal(share.detach().to_local(), before)

    refuses(RuntimeError, r"`differentiable=True` does not support a DTensor", _step_of(share, differentiable=True))
    sums = torch.nn.Parameter(DTensor.from_local(p.detach(), share.device_mesh, [Partial()]))
    refuses(ValueError, r"params'\]\[0\]: .*partial sums: a DTensor of placements \(Partial", lambda: AdaBelief([sums]))

    share.grad = share.detach().clone()
    optimizer.step()
    before = share.detach().to_local().clone()
    saved = optimizer.state_dict()
    saved["state"][0]["exp_avg"] = distribute_tensor(p.detach(), share.device_mesh, [Shard(1)], src_data_rank=None)
    refuses(
        ValueError, r"state\[0\]\['exp_avg'\].*Shard\(dim=1\).*Shard\(dim=0\)", lambda: optimizer.load_state_dict(saved)
    )
    optimizer.state[share]["exp_avg"] = torch.zeros(p.shape)
    refuses(ValueError, r"state 'exp_avg': a plain tensor \(expected a DTensor", optimizer.step)


def _step_of(p, **options):
    p.grad = p.detach().clone()
    return lambda: AdaBelief([p], **options).step()


def test_what_cannot_be_shared_is_refused_and_changes_nothing(two):
    two.run(refused)
