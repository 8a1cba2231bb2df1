"""Language modelling: the smoke version, the readers, the windows and the state between them, and what is learned."""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from smoke import check_smoke
from torch.nn import functional as F

from examples.harness import RIVALS, DataError, main
from examples.language_modelling.data import MODULES, Text, columns, penn_treebank, standard_library
from examples.language_modelling.experiment import (
    DEFAULT,
    EXPERIMENT,
    PAPER,
    evaluate,
    perplexity,
    scaled,
    train,
    train_epoch,
    windows,
)
from examples.language_modelling.models import LanguageModel, detach, locked_dropout

TINY = {"embedding": 8, "hidden": 12}


def run(variant="lstm1", seed=0, lr=1e-2, optimizer="adabelief", settings=DEFAULT):
    return list(train(variant, lambda p: RIVALS[optimizer].make(p, lr, settings), seed, settings, None, "stdlib"))


def write_penn_treebank(folder):
    for name, lines in (("train", " a b c\n b c\n" * 40), ("valid", " c b a\n" * 20), ("test", " a <unk>\n" * 20)):
        (folder / f"ptb.{name}.txt").write_text(lines)


def test_smoke(tmp_path):
    check_smoke(EXPERIMENT, tmp_path)


def test_standard_library():
    text = standard_library()
    assert [len(part) for part in (text.train, text.validation, text.test)] == [48000, 6000, 6000]
    assert list(MODULES) == sorted(MODULES)
    beginning = "".join(text.vocabulary[i] for i in text.train[:3200])
    assert Path(argparse.__file__).read_text("utf-8").startswith(beginning)
    assert len(set(text.train.tolist()) | set(text.validation.tolist()) | set(text.test.tolist())) == len(
        text.vocabulary
    )
    assert DEFAULT.extra["stdlib_sha256"] == text.sha256


def test_the_digest_tells_texts_and_splits_apart():
    digests = {Text.of(*parts).sha256 for parts in (("ab", "a", "b"), ("ab", "b", "a"), ("aba", "", "b"))}
    assert len(digests) == 3
    assert Text.of("ab", "a", "b").sha256 == Text.of("ab", "a", "b").sha256


def test_penn_treebank(tmp_path):
    write_penn_treebank(tmp_path)
    text = penn_treebank(tmp_path)
    assert text.vocabulary == ("<eos>", "<unk>", "a", "b", "c")
    assert [text.vocabulary[i] for i in text.train[:8]] == ["a", "b", "c", "<eos>", "b", "c", "<eos>", "a"]
    assert [text.vocabulary[i] for i in text.test[:3]] == ["a", "<unk>", "<eos>"]
    assert (len(text.train), len(text.validation), len(text.test)) == (280, 80, 60)


def test_penn_treebank_of_a_folder_without_it(tmp_path, capsys):
    write_penn_treebank(tmp_path)
    (tmp_path / "ptb.valid.txt").unlink()
    with pytest.raises(DataError, match=r"Invalid --data: .* missing: ptb\.valid\.txt"):
        penn_treebank(tmp_path)
    options = ["--dataset", "ptb", "--data", str(tmp_path), "--out", str(tmp_path), "--smoke"]
    assert main(EXPERIMENT, options) == 2
    assert "missing: ptb.valid.txt" in capsys.readouterr().err


def test_the_papers_settings_train(tmp_path):
    """All dropouts, penalties and random windows, on a network of a few units."""
    write_penn_treebank(tmp_path)
    settings = replace(PAPER, epochs=1, batch_size=4, extra={**PAPER.extra, "model": PAPER.extra["model"] | TINY})
    (row,) = train("lstm3", lambda p: RIVALS["adabelief"].make(p, 1e-2, settings), 0, settings, tmp_path, "ptb")
    assert all(math.isfinite(value) for value in row.values())
    assert EXPERIMENT.paper["ptb"]["lstm1"].overrides == {"adabelief": {"eps": 1e-16}}
    assert EXPERIMENT.paper["ptb"]["lstm2"].milestones == (100, 145)


@pytest.mark.parametrize("vary", [False, True])
def test_windows_cover_every_row_but_the_last(vary):
    torch.manual_seed(0)
    found = list(windows(1000, 25, vary))
    assert [i for window in found for i in range(window.start, window.stop)] == list(range(999))
    lengths = {window.stop - window.start for window in found[:-1]}
    assert (len(lengths) > 5) if vary else (lengths == {25})
    assert min(lengths) >= 5


def test_a_carried_state_reads_on():
    """Two windows give what one of both lengths gives, and without the state they do not."""
    torch.manual_seed(0)
    model = LanguageModel(5, 2, **TINY).eval()
    tokens = torch.randint(5, (10, 3))
    whole, *_ = model(tokens)
    first, state, *_ = model(tokens[:4])
    second, *_ = model(tokens[4:], detach(state))
    torch.testing.assert_close(torch.cat([first, second]), whole)
    assert not torch.allclose(model(tokens[4:])[0], whole[4:])


def test_a_detached_state_ends_backpropagation():
    model = LanguageModel(5, 1, **TINY)
    _, state, *_ = model(torch.zeros(3, 2, dtype=torch.int64))
    assert all(part.requires_grad for layer in state for part in layer)
    detached = detach(state)
    assert not any(part.requires_grad for layer in detached for part in layer)
    assert all(torch.equal(a, b) for x, y in zip(state, detached, strict=True) for a, b in zip(x, y, strict=True))


def test_the_loss_of_an_epoch_carries_the_state():
    """With a learning rate of 0 an epoch's loss is the evaluation of the same rows, at any length of its windows."""
    torch.manual_seed(0)
    model = LanguageModel(5, 1, **TINY)
    rows = torch.randint(5, (50, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loss = train_epoch(model, optimizer, rows, {**DEFAULT.extra, "bptt": 7})
    assert perplexity(loss) == pytest.approx(evaluate(model, rows, 50), rel=1e-5)


def test_an_epoch_of_a_few_steps_sees_the_beginning():
    torch.manual_seed(0)
    model = LanguageModel(5, 1, **TINY)
    rows = torch.randint(5, (50, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    few = train_epoch(model, optimizer, rows, {**DEFAULT.extra, "bptt": 7, "steps": 3})
    assert perplexity(few) == pytest.approx(evaluate(model, rows[:22], 22), rel=1e-5)


def test_gradients_are_clipped_by_norm():
    """With SGD, a learning rate of 1 and one window the step is the clipped gradient."""
    torch.manual_seed(0)
    model = LanguageModel(5, 1, **TINY)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    rows = torch.randint(5, (10, 4))
    train_epoch(model, torch.optim.SGD(model.parameters(), lr=1.0), rows, {**DEFAULT.extra, "bptt": 9, "clip": 0.01})
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_scaled_learning_rates_are_put_back():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    with scaled(optimizer, 0.5):
        assert optimizer.param_groups[0]["lr"] == 0.15
    assert optimizer.param_groups[0]["lr"] == 0.3


def test_locked_dropout_is_the_same_at_every_time_step():
    torch.manual_seed(0)
    dropped = locked_dropout(torch.ones(6, 4, 50), 0.5, training=True)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert torch.equal(locked_dropout(dropped, 0.5, training=False), dropped)


@pytest.mark.parametrize("name", ["dropout", "hidden_dropout", "input_dropout", "embedding_dropout", "weight_dropout"])
def test_each_dropout_acts_in_training_alone(name):
    torch.manual_seed(0)
    model = LanguageModel(5, 2, **TINY, **{name: 0.5})
    tokens = torch.randint(5, (6, 3))
    assert not torch.equal(model(tokens)[0], model(tokens)[0])
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])


def test_weight_dropout_drops_recurrent_weights():
    """With all of them dropped (p = 1), nothing is remembered but the cell: the recurrent matrix is 0."""
    torch.manual_seed(0)
    model = LanguageModel(5, 1, **TINY, weight_dropout=1.0)
    tokens = torch.randint(5, (6, 3))
    dropped, *_ = model(tokens)
    torch.nn.init.zeros_(model.lstms[0].weight_hh_l0)
    torch.testing.assert_close(dropped, model.eval()(tokens)[0])


@pytest.mark.parametrize(("loss", "expected"), [(0.0, 1.0), (1.0, math.e), (1e4, math.inf), (math.inf, math.inf)])
def test_perplexity(loss, expected):
    assert perplexity(loss) == expected


def test_perplexity_of_nan_is_nan():
    assert math.isnan(perplexity(math.nan))


def test_evaluation_is_the_perplexity_of_the_predictions():
    torch.manual_seed(0)
    model = LanguageModel(5, 1, **TINY).eval()
    rows = torch.randint(5, (20, 4))
    expected = F.cross_entropy(model(rows[:-1])[0].flatten(0, 1), rows[1:].flatten()).exp().item()
    assert evaluate(model, rows, 6) == pytest.approx(expected, rel=1e-5)
    rows[5, 2] = (rows[5, 2] + 1) % 5
    assert evaluate(model, rows, 6) != pytest.approx(expected, rel=1e-5)


def test_a_model_of_nothing_is_as_good_as_guessing():
    model = LanguageModel(5, 1, **TINY)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    assert evaluate(model, torch.randint(5, (20, 4)), 6) == pytest.approx(5)


def test_it_learns_more_than_frequencies():
    """After two epochs the perplexity is below that of the best model without context."""
    text = standard_library()
    settings = replace(DEFAULT, epochs=2, milestones=())
    rows = run(settings=settings)
    frequencies = (text.train.bincount(minlength=len(text.vocabulary)) + 1).double()
    unigram = (-(frequencies / frequencies.sum()).log()[text.test].mean()).exp().item()
    assert rows[-1]["perplexity"] < 0.75 * unigram
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_a_seed_determines_a_run():
    settings = replace(DEFAULT, epochs=1, extra={**DEFAULT.extra, "model": TINY | {"dropout": 0.3}})
    assert run(seed=1, settings=settings) == run(seed=1, settings=settings)
    assert run(seed=1, settings=settings) != run(seed=2, settings=settings)


def test_milestones_divide_the_learning_rate():
    """With a milestone after every epoch, the 8th moves nothing any more."""
    extra = {**DEFAULT.extra, "model": TINY, "bptt": 100}
    settings = replace(DEFAULT, epochs=9, batch_size=100, milestones=tuple(range(1, 9)), extra=extra)
    rows = run(settings=settings, optimizer="sgd", lr=1e-2)
    assert rows[0]["perplexity"] != rows[1]["perplexity"]
    assert rows[7]["perplexity"] == pytest.approx(rows[8]["perplexity"], rel=1e-6)


def test_a_run_that_diverges_ends():
    settings = replace(DEFAULT, extra={**DEFAULT.extra, "model": TINY, "clip": math.inf})
    rows = run(settings=settings, optimizer="sgd", lr=1e30)
    assert len(rows) == 1
    assert not math.isfinite(rows[0]["train_loss"])
    assert not math.isfinite(rows[0]["validation_perplexity"])


def test_columns_are_read_side_by_side():
    rows = columns(torch.arange(11), 3)
    assert rows.T.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
