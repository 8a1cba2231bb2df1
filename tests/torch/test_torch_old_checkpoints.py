"""Checkpoints of other optimizers go on as their source would have, or are refused whole."""

import copy

import pytest
import torch
from torch_helpers import parameter, steps
from torch_peers import adabelief_pytorch, continued, large_parameter, sole, timm, together

from adabelief_core.parity import compare
from adabelief_torch import AdaBelief

DTYPES = [torch.float32, torch.float64]
PEERS = [adabelief_pytorch, timm]
PHASES = [
    {"rectify": False},
    {"rectify": False, "amsgrad": True},
    {"rectify": True},
    {"rectify": True, "amsgrad": True},
    {"rectify": True, "degenerated_to_sgd": False},
]
DECAYS = [
    {},
    {"weight_decay": 0.1},
    {"weight_decay": 1e-4, "fixed_decay": True},
    {"weight_decay": 0.1, "weight_decouple": False},
]

# The sources' addcmul, addcdiv and lerp round once where the rule rounds twice, torch.sqrt is an ulp off now and then,
# and they divide where the rule multiplies: measured ≤ 5 ulps of the parameter, 5 of s, 3 of the largest m.
ULPS = 8
# They round the parameter after its decay too, always in one direction while it is in one binade: half an ulp a step
# more, 25 in 50 steps; measured ≤ 27.
ULPS_DECAYED = 32


def distances(a, b):
    """Between two optimizers of one parameter: ulps of p, ulps of s, and m in ε of 1, which bounds |m|."""
    (p, known), (q, other) = sole(a), sole(b)
    m = (known["exp_avg"] - other["exp_avg"]).abs().max().item() / torch.finfo(p.dtype).eps
    s = compare(known["exp_avg_var"].numpy(), other["exp_avg_var"].numpy()).ulps
    return compare(p.numpy(), q.numpy()).ulps, s, m


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("peer", PEERS)
def test_a_run_of_a_peer_goes_on(peer, phase, decay, dtype):
    options = {**phase, **decay}
    source = peer([large_parameter(dtype)], lr=1e-3, **options)
    # Into both phases of rectification, whose switch is at step 6.
    together([source], 3)
    # What stood on the instance of adabelief-pytorch is given anew; timm's stands in the groups.
    resumed = continued(source, **(options if peer is adabelief_pytorch else {}))
    worst_p, worst_s, worst_m = 0, 0, 0
    for t in range(50):
        together([source, resumed], 1, start=3 + t)
        p, s, m = distances(source, resumed)
        worst_p, worst_s, worst_m = max(worst_p, p), max(worst_s, s), max(worst_m, m)
    decoupled = "weight_decay" in decay and decay.get("weight_decouple", True)
    assert worst_p <= (ULPS_DECAYED if decoupled else ULPS)
    assert worst_s <= ULPS
    assert worst_m <= ULPS
    assert sole(resumed)[1]["step"] == 53


def test_the_distances_see_one_ulp():
    a, b = (AdaBelief([large_parameter(torch.float64)]) for _ in range(2))
    together([a, b], 2)
    assert distances(a, b) == (0, 0, 0)
    p, state = sole(b)
    for x in (p, state["exp_avg"], state["exp_avg_var"]):
        x[3] = torch.nextafter(x[3], torch.tensor(9.0, dtype=torch.float64))
    p_ulps, s_ulps, m = distances(a, b)
    assert (p_ulps, s_ulps) == (1, 1)
    assert 0 < m <= 1


@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_group_of_adabelief_pytorch_has_its_options_and_ours(amsgrad):
    numbers = {"lr": 1e-2, "betas": (0.8, 0.99), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": amsgrad}
    source = adabelief_pytorch([parameter(3)], rectify=False, **numbers)
    torch.optim.lr_scheduler.StepLR(source, 10)
    together([source], 2)
    ours = {
        "weight_decouple": False,
        "degenerated_to_sgd": False,
        "nesterov": True,
        "eps_root": 1e-12,
        "update_clip": 2.0,
    }
    (group,) = continued(source, **ours).param_groups
    assert {key: group[key] for key in numbers} == numbers
    assert {key: group[key] for key in ours} == ours
    assert group["initial_lr"] == 1e-2
    assert "buffer" not in group


def test_what_adabelief_pytorch_ignores_in_a_group_is_ignored():
    source = adabelief_pytorch([{"params": [parameter(3)], "rectify": False}])
    assert continued(source, rectify=True).param_groups[0]["rectify"] is True


def test_a_group_of_timm_has_its_options():
    options = {
        "lr": 1e-2,
        "betas": (0.8, 0.99),
        "eps": 1e-8,
        "weight_decay": 0.1,
        "amsgrad": True,
        "rectify": False,
        "degenerated_to_sgd": False,
        "weight_decouple": False,
    }
    source = timm([parameter(3)], foreach=True, **options)
    together([source], 2)
    (group,) = continued(source, nesterov=True, foreach=False).param_groups
    assert {key: group[key] for key in options} == options
    assert (group["nesterov"], group["foreach"]) == (True, False)
    assert "decoupled_decay" not in group


def test_a_fixed_decay_that_timm_ignores_is_off():
    source = timm([parameter(3)], weight_decay=0.1, weight_decouple=False, fixed_decay=True)
    assert continued(source).param_groups[0]["fixed_decay"] is False


def as_saved_by_timm(p, **options):
    """What timm 1.0.31 saves after a step, so that the names are tested without it too."""
    group = {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-16,
        "weight_decay": 0,
        "amsgrad": False,
        "degenerated_to_sgd": True,
        "decoupled_decay": True,
        "rectify": True,
        "fixed_decay": False,
        "foreach": None,
        "params": [0],
        **options,
    }
    moments = {"exp_avg": torch.full_like(p, 0.5), "exp_avg_var": torch.full_like(p, 0.25)}
    return {"state": {0: {"step": 1, **moments}}, "param_groups": [group]}


def test_the_names_of_timm():
    p = parameter(3)
    optimizer = AdaBelief([p])
    optimizer.load_state_dict(as_saved_by_timm(p, decoupled_decay=False))
    group = optimizer.param_groups[0]
    assert (group["rectify"], group["weight_decouple"]) == (True, False)
    assert optimizer.state[p]["step"] == 1
    assert torch.equal(optimizer.state[p]["exp_avg_var"], torch.full((3,), 0.25))


@pytest.mark.parametrize("peer", PEERS)
def test_amsgrad_that_rectification_ignored_stays_off_until_it_is_turned_on(peer):
    source = peer([large_parameter(torch.float64)], amsgrad=True, rectify=True)
    together([source], 8)
    assert "max_exp_avg_var" in sole(source)[1]
    resumed = continued(source, amsgrad=True, rectify=True)
    assert resumed.param_groups[0]["amsgrad"] is False
    assert "max_exp_avg_var" not in sole(resumed)[1]
    resumed.param_groups[0]["amsgrad"] = True
    together([resumed], 1, start=8)
    _, state = sole(resumed)
    assert torch.equal(state["max_exp_avg_var"], state["exp_avg_var"])


@pytest.mark.parametrize(
    ("peer", "dtype", "kept"),
    [
        (adabelief_pytorch, torch.float16, torch.float32),
        (adabelief_pytorch, torch.bfloat16, torch.bfloat16),
        (timm, torch.float16, torch.float32),
        (timm, torch.bfloat16, torch.float32),
    ],
)
def test_moments_of_half_precision_parameters_lose_nothing(peer, dtype, kept):
    source = peer([large_parameter(dtype)])
    together([source], 7)
    _, theirs = sole(source)
    _, ours = sole(continued(source))
    for key in ("exp_avg", "exp_avg_var"):
        assert theirs[key].dtype is kept
        assert ours[key].dtype is torch.float32
        assert torch.equal(ours[key], theirs[key].float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_run_of_timm_goes_on(dtype):
    # Both compute in float32 and round once. Their float32 results differ by a few ulps, which a rounding to 8 or 11
    # bits sees now and then as one ulp.
    source = timm([large_parameter(dtype)], lr=1e-2)
    together([source], 3)
    resumed = continued(source)
    together([source, resumed], 50, start=3)
    (p, _), (q, _) = sole(source), sole(resumed)
    difference = (p.view(torch.int16).int() - q.view(torch.int16).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


def stepped(optimizer, **options):
    source = optimizer([parameter(3)], **options)
    steps(source, 2)
    return source.state_dict()


def spoilt(saved, key=None, group=None, **values):
    if key is not None:
        saved["state"][0][key] = values["value"]
    saved["param_groups"][0].update(group or {})
    return saved


REFUSED = {
    "NAdam": (lambda: stepped(torch.optim.NAdam), r"param_groups\[0\] is not of torch.optim.Adam or AdamW"),
    "RAdam": (lambda: stepped(torch.optim.RAdam), r"param_groups\[0\] is not of torch.optim.Adam or AdamW"),
    "timm's AdamW": (
        lambda: spoilt(stepped(torch.optim.AdamW), group={"caution": True}),
        r"param_groups\[0\] is not of torch.optim.Adam or AdamW",
    ),
    "Adamax": (lambda: stepped(torch.optim.Adamax), r"\[0\]: state\[0\] has no 'exp_avg_var' \(its keys: 'step', "),
    "SGD": (lambda: stepped(torch.optim.SGD, momentum=0.9), r"state\[0\] has no 'step' \(its keys: 'momentum_buffer'"),
    "Adam without a first moment": (
        lambda: stepped(torch.optim.Adam, betas=(0.0, 0.999)),
        r"\[0\]: state\[0\]: Adam's moments with a beta parameter at index 0 of 0 \(expected > 0",
    ),
    "Adam's lr": (lambda: spoilt(stepped(torch.optim.Adam), group={"lr": -1.0}), "Invalid learning rate: -1.0"),
    "Adam's shape": (
        lambda: spoilt(stepped(torch.optim.Adam), "exp_avg_sq", value=torch.zeros(4)),
        r"state\[0\]\['exp_avg_sq'\]: shape \[4\]",
    ),
    "Adam's other key": (
        lambda: spoilt(stepped(torch.optim.Adam), "delta", value=1.0),
        r"state\[0\] has 'delta', which torch.optim.Adam or AdamW has not",
    ),
    "timm's other key": (
        lambda: spoilt(as_saved_by_timm(parameter(3)), "momentum", value=1.0),
        r"state\[0\] has 'momentum', which timm's AdaBelief has not",
    ),
    "timm's option": (
        lambda: as_saved_by_timm(parameter(3), decoupled_decay=1),
        "Invalid weight_decouple: 1",
    ),
    "timm's missing key": (
        lambda: {**(saved := as_saved_by_timm(parameter(3))), "state": {0: {"step": saved["state"][0]["step"]}}},
        r"state\[0\] has no 'exp_avg'",
    ),
    "timm's shape": (lambda: as_saved_by_timm(parameter(4)), r"state\[0\]\['exp_avg'\]: shape \[4\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_over_is_refused_and_nothing_changes(case):
    make, match = REFUSED[case]
    optimizer = AdaBelief([parameter(3)])
    steps(optimizer, 2)
    before = copy.deepcopy(optimizer.state_dict())
    saved = make()
    given = copy.deepcopy(saved)
    with pytest.raises((TypeError, ValueError), match=match):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for key, x in before["state"][0].items():
        assert torch.equal(after["state"][0][key], x)
    assert saved["param_groups"] == given["param_groups"]
