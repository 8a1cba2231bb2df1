"""torch.compile sees of a step what it sees of AdamW's, the same number of graphs, and keeps the rule's bits."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LinearLR, OneCycleLR
from torch_rule import Rule

from adabelief_torch import AdaBelief

STEPS = 12

pytestmark = [
    # Of torch 2.13 itself, when it imports its compiler.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
    # OneCycleLR's, in the order in which a compiled step is called.
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),
]
generates_code = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="no C++ compiler")


@pytest.fixture(autouse=True)
def _afresh():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def inputs(t):
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(t))


def graphs(cls, scheduler=None, whole=False, backend="eager", check=None, steps=STEPS, **options):
    """The number of graphs that some steps take; each step is checked.

    Args:
        cls: The optimizer's class.
        scheduler: Makes a scheduler of an optimizer.
        whole: Whether the forward and backward pass are compiled, too.
        backend: What carries the graphs out.
        check: Of the model: what to call after each step, with the optimizer.
        steps: How many.
        **options: The optimizer's.
    """
    counters.clear()
    torch.compiler.reset()
    model = network()
    optimizer = cls(model.parameters(), **options)
    schedule = scheduler(optimizer) if scheduler else None
    if check:
        check = check(model)

    def train(x):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()

    compiled = torch.compile(train if whole else optimizer.step, backend=backend)
    for t in range(steps):
        if whole:
            compiled(inputs(t))
        else:
            optimizer.zero_grad()
            model(inputs(t)).square().sum().backward()
            compiled()
        if check:
            check(optimizer)
        if schedule:
            schedule.step()
    return counters["stats"]["unique_graphs"]


def one_cycle(optimizer):
    return OneCycleLR(optimizer, max_lr=0.1, total_steps=2 * STEPS)


def tensor(**options):
    return {"lr": torch.tensor(0.01), **options}


CASES = {
    "defaults": ({}, None),
    "weight decay, amsgrad": ({"weight_decay": 0.1, "amsgrad": True}, None),
    "maximize, foreach": ({"maximize": True, "foreach": True}, None),
    "a number's schedule": ({"lr": 0.01}, lambda optimizer: ExponentialLR(optimizer, 0.9)),
    "a tensor's schedule": (tensor(), lambda optimizer: ExponentialLR(optimizer, 0.9)),
    "a tensor's warm-up": (tensor(), lambda optimizer: LinearLR(optimizer, total_iters=5)),
    "a tensor's cosine": (tensor(), lambda optimizer: CosineAnnealingLR(optimizer, 10)),
    "betas' schedule": (tensor(), one_cycle),
}


@pytest.mark.parametrize(("options", "scheduler"), CASES.values(), ids=CASES)
def test_a_step_takes_as_many_graphs_as_adamws(options, scheduler):
    found = graphs(AdaBelief, scheduler, **options)
    assert found == graphs(AdamW, scheduler, **options)
    assert found > 0


@pytest.mark.parametrize("options", [{}, {"rectify": True}, tensor(rectify=True, kahan_sum=True), {"nesterov": True}])
def test_twelve_steps_are_one_graph(options):
    assert graphs(AdaBelief, **options) == 1


def test_a_whole_training_step_takes_as_many_graphs_as_with_adamw():
    found = graphs(AdaBelief, whole=True)
    assert found == graphs(AdamW, whole=True)
    assert found > 0


def held_to_the_rule(checked, **options):
    """A check of each step against the core's rule, on the gradients that the step has."""

    def start(model):
        rule = Rule(model.parameters())

        def check(optimizer):
            group = optimizer.param_groups[0]
            rule.step(float(group["lr"]), betas=group["betas"], **options)
            rule.check(optimizer)
            checked.append(optimizer)

        return check

    return start


@generates_code
@pytest.mark.parametrize(
    ("whole", "case", "steps", "options"),
    [
        (False, CASES["a number's schedule"], STEPS, {"rectify": True, "weight_decay": 0.1}),
        (False, CASES["betas' schedule"], 3, {"nesterov": True}),
        (True, CASES["defaults"], STEPS, {"rectify": True, "amsgrad": True}),
    ],
    ids=["learning rates", "betas", "whole"],
)
def test_compiled_training_has_the_rules_bits(whole, case, steps, options):
    checked = []
    given, scheduler = case
    check = held_to_the_rule(checked, **options)
    graphs(AdaBelief, scheduler, whole, "inductor", check, steps, **given, **options)
    assert len(checked) == steps


def test_one_ulp_in_a_parameter_is_seen():
    model = network()
    check = held_to_the_rule([])(model)
    optimizer = AdaBelief(model.parameters())
    model(inputs(0)).square().sum().backward()
    optimizer.step()
    check(optimizer)
    optimizer.step()
    next(model.parameters()).data.view(torch.int32)[0, 0] += 1
    with pytest.raises(AssertionError):
        check(optimizer)
