"""The language modelling experiment: truncated backpropagation through time, judged by perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from adabelief_core import presets
from examples.harness import Experiment, Settings

from .data import Text, columns, penn_treebank, provenance, standard_library
from .models import LanguageModel, State, detach

LAYERS = {"lstm1": 1, "lstm2": 2, "lstm3": 3}
EVALUATION_BATCH = 10


def windows(length: int, bptt: int, vary: bool) -> Iterator[slice]:
    """Consecutive windows of rows that cover `length` rows but the last, which is only a target.

    With `vary`, lengths are random as in AWD-LSTM: around `bptt`, once in twenty around half of it, at least 5.
    """
    start = 0
    while start < length - 1:
        size = bptt
        if vary:
            centre = bptt if torch.rand(()) < 0.95 else bptt / 2
            size = max(5, int(centre + 5 * torch.randn(())))
        yield slice(start, min(start + size, length - 1))
        start += size


@contextmanager
def scaled(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """The optimizer with its learning rates times `factor`, which are put back at the end."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] *= factor
    yield
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def perplexity(loss: float) -> float:
    """exp of a mean negative log-likelihood in nats; inf where that overflows, NaN for NaN."""
    return math.exp(loss) if not loss > 700 else math.inf


@torch.no_grad()
def evaluate(model: LanguageModel, rows: Tensor, bptt: int) -> float:
    """Perplexity of the text in `rows`, shape (time, batch); the state is carried through all of it."""
    model.eval()
    state: State | None = None
    total = 0.0
    for window in windows(len(rows), bptt, vary=False):
        targets = rows[window.start + 1 : window.stop + 1]
        logits, state, _, _ = model(rows[window], state)
        total += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
    return perplexity(total / rows[1:].numel())


def train_epoch(model: LanguageModel, optimizer: Optimizer, rows: Tensor, extra: Mapping[str, Any]) -> float:
    """One pass over the text, or over its first `steps` windows.

    Returns:
        The mean negative log-likelihood of a token in nats, as training saw it: NaN or inf as soon as one window's is.
    """
    model.train()
    state: State | None = None
    total, seen = 0.0, 0
    for window in islice(windows(len(rows), extra["bptt"], extra["vary_bptt"]), extra.get("steps")):
        size = window.stop - window.start
        targets = rows[window.start + 1 : window.stop + 1]
        logits, state, output, dropped = model(rows[window], state)
        state = detach(state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        total, seen = total + loss.item() * size, seen + size
        if not math.isfinite(total):
            break
        penalty = extra["activation"] * dropped.square().mean()
        if size > 1:
            penalty = penalty + extra["slowness"] * output.diff(dim=0).square().mean()
        optimizer.zero_grad()
        (loss + penalty).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), extra["clip"])
        with scaled(optimizer, size / extra["bptt"] if extra["vary_bptt"] else 1.0):
            optimizer.step()
    return total / seen


def load(data: Path | None) -> Text:
    """The standard library's text without a folder, or Penn Treebank from one."""
    return standard_library() if data is None else penn_treebank(data)


def train(
    variant: str,
    optimizer: Callable[[Iterable[torch.nn.Parameter]], Optimizer],
    seed: int,
    settings: Settings,
    data: Path | None,
    dataset: str,
) -> Iterator[dict[str, float]]:
    """Train one LSTM from one seed; the losses and perplexities of each epoch. A run that diverges ends there."""
    text = load(data)
    torch.manual_seed(seed)
    device = "cuda" if data is not None and torch.cuda.is_available() else "cpu"
    model = LanguageModel(len(text.vocabulary), LAYERS[variant], **settings.extra["model"]).to(device)
    rows = columns(text.train, settings.batch_size).to(device)
    validation, test = (columns(part, EVALUATION_BATCH).to(device) for part in (text.validation, text.test))
    steps = optimizer(model.parameters())
    schedule = MultiStepLR(steps, list(settings.milestones), gamma=0.1)
    for _ in range(settings.epochs):
        loss = train_epoch(model, steps, rows, settings.extra)
        schedule.step()
        yield {
            "train_loss": loss,
            "perplexity": evaluate(model, test, settings.extra["bptt"]),
            "validation_perplexity": evaluate(model, validation, settings.extra["bptt"]),
        }
        if not math.isfinite(loss):
            return


def by_layers(settings: Settings) -> dict[str, Settings]:
    """The settings of each variant: the authors' table has another eps for a single layer."""
    single = replace(settings, overrides={"adabelief": {"eps": presets.LSTM_1["eps"]}})
    return dict.fromkeys(LAYERS, settings) | {"lstm1": single}


DEFAULT = Settings(
    epochs=3,
    batch_size=20,
    weight_decay=presets.LSTM_2_3["weight_decay"],
    milestones=(2,),
    overrides={"adabelief": {"eps": presets.LSTM_2_3["eps"]}},
    extra={
        "model": {"embedding": 64, "hidden": 64, "dropout": 0.1, "spread": 0.5},
        "bptt": 25,
        "vary_bptt": False,
        "clip": 0.25,
        "activation": 0.0,
        "slowness": 0.0,
        **provenance(),
    },
)
# What the authors ran: run_all_layer1.py to run_all_layer3.py and main.py's defaults, in PyTorch_Experiments/LSTM of
# github.com/juntang-zhuang/Adabelief-Optimizer. The rest of it is AWD-LSTM's (arXiv 1708.02182).
PAPER = Settings(
    epochs=200,
    batch_size=20,
    weight_decay=presets.LSTM_2_3["weight_decay"],
    milestones=(100, 145),
    overrides={"adabelief": {"eps": presets.LSTM_2_3["eps"]}},
    extra={
        "model": {
            "embedding": 400,
            "hidden": 1150,
            "dropout": 0.4,
            "hidden_dropout": 0.25,
            "input_dropout": 0.4,
            "embedding_dropout": 0.1,
            "weight_dropout": 0.5,
        },
        "bptt": 70,
        "vary_bptt": True,
        "clip": 0.25,
        "activation": 2.0,
        "slowness": 1.0,
    },
)

EXPERIMENT = Experiment(
    name="language_modelling",
    title="Language modelling",
    variants=tuple(LAYERS),
    metric="perplexity",
    better="lower",
    tuned_on="validation_perplexity",
    rates=10.0,
    settings=by_layers(DEFAULT),
    train=train,
    datasets=("stdlib", "ptb"),
    paper={"ptb": by_layers(PAPER)},
    smoke={"epochs": 1, "milestones": (), "extra": {"steps": 3, "model": {"embedding": 8, "hidden": 8}}},
)
