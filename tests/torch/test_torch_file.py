"""Files of torch.save: read as a run, and written from one."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch_distributed import assert_same, steps
from torch_peers import adabelief_pytorch, timm

from adabelief_core.portable import Entry, Snapshot
from adabelief_core.portable._convert import Settings
from adabelief_torch import AdaBelief, restore
from adabelief_torch._file import read, write

NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]


def network(dtype=torch.float32):
    """With parameters and buffers of one shape."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    return torch.nn.Sequential(*layers).to(dtype)


def saved(path, make, count=3, **extra):
    """Train, and save as scripts do."""
    model = network()
    optimizer = make(model.parameters())
    steps(optimizer, count)
    torch.save({"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict(), **extra}, path)
    return model, optimizer


SOURCES = {
    "ours": (lambda params: AdaBelief(params, lr=0.1, amsgrad=True), {}),
    "adabelief-pytorch": (
        lambda params: adabelief_pytorch(params, lr=0.1, eps=1e-8, rectify=True),
        {"rectify": True},
    ),
    "timm": (lambda params: timm(params, lr=0.1, eps=1e-8, rectify=True), {}),
    "Adam": (lambda params: torch.optim.Adam(params, lr=0.1), {}),
    "AdamW": (lambda params: torch.optim.AdamW(params, lr=0.1, amsgrad=True), {}),
}


@pytest.mark.parametrize("source", SOURCES)
def test_it_reads_what_load_state_dict_takes(source, tmp_path, capsys):
    make, options = SOURCES[source]
    model, optimizer = saved(tmp_path / "run.pt", make)
    expected = AdaBelief(model.parameters(), **options)
    expected.load_state_dict(optimizer.state_dict())
    taken = read(tmp_path / "run.pt", Settings(options))
    assert list(taken.entries) == NAMES
    assert taken.hyperparameters.rectify == (source in ("adabelief-pytorch", "timm"))
    other = network()
    fresh = AdaBelief(other.parameters())
    restore(fresh, other.named_parameters(), taken, check_hyperparameters=False)
    if taken.hyperparameters.amsgrad:
        fresh.param_groups[0]["amsgrad"] = True
        restore(fresh, other.named_parameters(), taken, check_hyperparameters=False)
    assert_same(fresh, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_written_and_loaded_goes_on(dtype, tmp_path):
    model = network(dtype)
    decay, others = [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": others}]
    optimizer = AdaBelief(groups, lr=0.1, rectify=True, kahan_sum=True)
    steps(optimizer, 3)
    names = {p: name for name, p in model.named_parameters()}
    state = optimizer.state_dict()
    for group, params in zip(state["param_groups"], (decay, others), strict=True):
        group["param_names"] = [names[p] for p in params]
    torch.save({"optimizer": state, "model": model.state_dict()}, tmp_path / "a.pt")
    taken = read(tmp_path / "a.pt", Settings())
    assert taken.entries["0.weight"].h.weight_decay == 0.1
    assert taken.entries["0.bias"].h.weight_decay == 0
    write(taken, tmp_path / "b.pt", Settings())
    content = torch.load(tmp_path / "b.pt", weights_only=True)
    other = network(dtype)
    other.load_state_dict(content["model"], strict=False)  # without the buffers of normalisation
    params = dict(other.named_parameters())
    groups = [{"params": [params[name] for name in g["param_names"]]} for g in content["optimizer"]["param_groups"]]
    fresh = AdaBelief(groups)
    fresh.load_state_dict(content["optimizer"])
    single = copy.deepcopy(optimizer)
    steps(fresh, 3, start=3)
    steps(single, 3, start=3)
    assert_same(fresh, single)


def test_a_run_whose_hyperparameters_are_not_known_needs_them(tmp_path):
    one = np.ones(2, np.float32)
    taken = Snapshot({"w": Entry(1, one, one, one)})
    with pytest.raises(ValueError, match=r"hyperparameters of 'w' are not known \(--set lr=… says them\)"):
        write(taken, tmp_path / "x.pt", Settings())
    assert not list(tmp_path.iterdir())
    write(Settings({"lr": 0.5, "betas": (0.8, 0.9)}).completed(taken), tmp_path / "x.pt", Settings())
    assert read(tmp_path / "x.pt", Settings()).hyperparameters.betas == (0.8, 0.9)


def adam(params):
    return torch.optim.Adam(params, lr=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "expected a dict of state dicts, found list"),
        ({"model": {"w": torch.ones(1)}}, "expected one state dict of an optimizer, found none"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "expected one state dict of a model, found none"),
        (
            {"optimizer": {"state": {}, "param_groups": []}, "a": {"w": torch.ones(1)}, "b": {"w": torch.ones(1)}},
            "expected one state dict of a model, found 'a', 'b'",
        ),
    ],
)
def test_a_file_of_another_content(content, message, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=f"Invalid file '.*x.pt': {message}"):
        read(tmp_path / "x.pt", Settings())


def test_names_that_are_not_clear(tmp_path):
    path = tmp_path / "x.pt"
    saved(path, lambda params: adam(list(params)[:2]))
    with pytest.raises(ValueError, match=r"the optimizer has 2 parameters, the model 6: '0.weight', '0.bias', "):
        read(path, Settings())
    saved(path, lambda params: adam(list(params)[::-1]))
    with pytest.raises(ValueError, match=r"parameter 0 has shape \[2\], the model's '0.weight' \[4, 3\]"):
        read(path, Settings())


def test_an_optimizer_without_moments_of_this_kind(tmp_path):
    saved(tmp_path / "x.pt", lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9))
    with pytest.raises(ValueError, match=r"Invalid file '.*x.pt': .*has no 'step' \(its keys: 'momentum_buffer'\)"):
        read(tmp_path / "x.pt", Settings())


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"model": SimpleNamespace()}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"Invalid file '.*x.pt': Weights only load failed"):
        read(tmp_path / "x.pt", Settings())
    (tmp_path / "y.pt").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"Invalid file '.*y.pt'"):
        read(tmp_path / "y.pt", Settings())
