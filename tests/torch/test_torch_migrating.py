"""docs/migrating.md: the names and the order of adabelief-pytorch's arguments, and each row of the table."""

import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch_helpers import parameter
from torch_peers import adabelief_pytorch, together

from adabelief_torch import AdaBelief

peer = pytest.importorskip("adabelief_pytorch")

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
ON_THE_INSTANCE = ("rectify", "degenerated_to_sgd", "weight_decouple", "fixed_decay")
CHECKS = {}


def row(name):
    """The check of a row of the table, by its first cell."""

    def add(check):
        CHECKS[name] = check
        return check

    return add


def pair(*shape, dtype=torch.float32, **options):
    """Theirs and ours, on equal parameters."""
    return (
        adabelief_pytorch([parameter(*shape, dtype=dtype)], **options),
        AdaBelief([parameter(*shape, dtype=dtype)], **options),
    )


def params(*optimizers):
    return [optimizer.param_groups[0]["params"][0] for optimizer in optimizers]


def moments(*optimizers):
    return [optimizer.state[p]["exp_avg_var"] for optimizer, p in zip(optimizers, params(*optimizers), strict=True)]


def test_names_and_order_of_the_arguments():
    theirs = inspect.signature(peer.AdaBelief).parameters
    ours = inspect.signature(AdaBelief).parameters
    assert [name for name in ours if ours[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD] == list(theirs)
    # The two that the page names, and no other.
    assert {name for name in theirs if theirs[name].default != ours[name].default} == {"rectify", "print_change_log"}


def test_arguments_by_position():
    values = (0.1, (0.8, 0.99), 1e-8, 0.01, True, True, True, True, False, False)
    theirs, ours = peer.AdaBelief([parameter(2)], *values), AdaBelief([parameter(2)], *values)
    for name, value in zip(list(inspect.signature(peer.AdaBelief).parameters)[1:-1], values, strict=False):
        assert ours.param_groups[0][name] == value
        assert (getattr(theirs, name) if name in ON_THE_INSTANCE else theirs.param_groups[0][name]) == value


@row("default of `rectify`")
def rectify_by_default():
    theirs, ours = pair(2)
    assert theirs.rectify
    assert not ours.param_groups[0]["rectify"]


@row("`amsgrad` with `rectify`")
def amsgrad_under_rectify():
    moved = []
    for amsgrad in (True, False):
        optimizers = pair(5, dtype=torch.float64, amsgrad=amsgrad, betas=(0.9, 0.9), rectify=True)
        together(optimizers, 50)
        moved.append(params(*optimizers))
    (theirs, ours), (their_plain, our_plain) = moved
    assert torch.equal(theirs, their_plain)
    assert (ours - our_plain).abs().max() > 1e-4


@row("`weight_decouple=False`")
def coupled_decay():
    optimizers = pair(5, weight_decay=0.1, weight_decouple=False)
    theirs, ours = params(*optimizers)
    expected = theirs.grad = torch.ones(5)
    ours.grad = torch.ones(5)
    for optimizer in optimizers:
        optimizer.step()
    assert not torch.equal(expected, torch.ones(5))
    assert torch.equal(ours.grad, torch.ones(5))


@row("float16 parameters")
def half_precision():
    optimizers = pair(5, dtype=torch.float16, lr=0.1)
    theirs, ours = params(*optimizers)
    views = theirs.detach().view(-1), ours.detach().view(-1)
    for p in (theirs, ours):
        p.grad = torch.ones_like(p)
    gradients = theirs.grad.data_ptr(), ours.grad.data_ptr()
    for optimizer in optimizers:
        optimizer.step()
    assert not torch.equal(views[0], theirs)
    assert torch.equal(views[1], ours)
    assert theirs.grad.data_ptr() != gradients[0]
    assert ours.grad.data_ptr() == gradients[1]


@row("bfloat16 parameters")
def brain_float():
    optimizers = pair(5, dtype=torch.bfloat16, rectify=False)
    together(optimizers, 1)
    before = [s.clone() for s in moments(*optimizers)]
    for _ in range(50):
        for optimizer, p in zip(optimizers, params(*optimizers), strict=True):
            # As predicted: g - m is 0 but for rounding.
            p.grad = optimizer.state[p]["exp_avg"].to(torch.bfloat16)
            optimizer.step()
    theirs, ours = (now / then for now, then in zip(moments(*optimizers), before, strict=True))
    assert theirs.min() >= 1
    assert ours.max() < 0.999**50 * 1.01


@row("loading a float16 state")
def loading_half_precision():
    optimizers = pair(5, dtype=torch.float16)
    for optimizer, p in zip(optimizers, params(*optimizers), strict=True):
        p.grad = torch.full_like(p, 1e-3)
        optimizer.step()
        assert optimizer.state[p]["exp_avg_var"].dtype is torch.float32
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    theirs, ours = moments(*optimizers)
    assert not theirs.any()
    assert (ours.dtype, bool(ours.all())) == (torch.float32, True)


@row("complex parameters")
def complex_numbers():
    optimizers = pair(1, dtype=torch.complex64, rectify=False)
    p = params(*optimizers)
    before = [x.detach().clone() for x in p]
    # Along the imaginary axis alone.
    for x, optimizer in zip(p, optimizers, strict=True):
        x.grad = torch.tensor([1j], dtype=torch.complex64)
        optimizer.step()
    theirs, ours = (x.detach() - then for x, then in zip(p, before, strict=True))
    assert abs(theirs.real) > 1e-4
    assert abs(theirs.imag) < 1e-6
    assert ours.real == 0
    assert -2e-3 < ours.imag < -1e-3


@row("options of a group")
def options_of_a_group():
    theirs, ours = (
        make([{"params": [parameter(5)], "rectify": False, "weight_decouple": False}], rectify=True, weight_decay=0.1)
        for make in (adabelief_pytorch, AdaBelief)
    )
    plain = AdaBelief([parameter(5)], rectify=False, weight_decouple=False, weight_decay=0.1)
    default = adabelief_pytorch([parameter(5)], weight_decay=0.1)
    together([theirs, ours, plain, default], 10)
    p, q, r, s = params(theirs, ours, plain, default)
    assert torch.equal(p, s)
    assert torch.equal(q, r)
    assert (p - q).abs().max() > 1e-4


@row("saving options")
def saving_options():
    theirs, ours = (optimizer.state_dict()["param_groups"][0].keys() for optimizer in pair(2))
    assert not set(ON_THE_INSTANCE) & theirs
    assert set(ON_THE_INSTANCE) <= ours


@row("`copy.deepcopy`, `pickle`")
def copies():
    theirs, ours = pair(2, weight_decay=0.1)
    for copied in (copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))):
        with pytest.raises(AttributeError, match="weight_decouple"):
            together([copied(theirs)], 1)
        twin = copied(ours)
        assert {key: twin.param_groups[0][key] for key in ON_THE_INSTANCE} == {
            key: ours.param_groups[0][key] for key in ON_THE_INSTANCE
        }
        together([twin], 1)


@row("options that make no sense")
def contradictions():
    for options in ({"weight_decay": -1.0}, {"fixed_decay": True, "weight_decouple": False}):
        together([adabelief_pytorch([parameter(2)], **options)], 1)
        with pytest.raises(ValueError, match=r"weight_decay value: -1\.0|fixed_decay: True"):
            AdaBelief([parameter(2)], **options)


@row("a step between forward and backward")
def stale_graphs():
    theirs, ours = pair(3, lr=0.5, rectify=False)
    p, q = params(theirs, ours)
    before = p.detach().clone()
    losses = [x.square().sum() for x in (p, q)]
    together([theirs, ours], 1)
    p.grad = None
    losses[0].backward()
    assert not torch.equal(p.grad, 2 * before)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses[1].backward()


@row('`state[p]["step"]`')
def step_counts():
    optimizers = pair(2)
    together(optimizers, 3)
    theirs, ours = (optimizer.state[p]["step"] for optimizer, p in zip(optimizers, params(*optimizers), strict=True))
    assert type(theirs) is int
    assert (ours.dtype, ours.item()) == (torch.float32, 3.0)


def test_printing(capsys):
    peer.AdaBelief([parameter(2)])
    assert len(capsys.readouterr().out) == 996
    peer.AdaBelief([parameter(2)], print_change_log=False)
    assert len(capsys.readouterr().out.splitlines()) == 2
    AdaBelief([parameter(2)], rectify=True, amsgrad=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="Invalid print_change_log: True"):
        AdaBelief([parameter(2)], print_change_log=True)


@pytest.mark.parametrize("name", CHECKS)
def test_the_row(name):
    CHECKS[name]()


def test_every_row_has_its_test():
    table = PAGE.split("What changes:\n\n")[1].split("\n\n")[0]
    # Its header has an empty first cell.
    rows = re.findall(r"^\| (?!\|)(.+?) \|", table, re.MULTILINE)
    assert sorted(rows) == sorted([*CHECKS, "printing"])
