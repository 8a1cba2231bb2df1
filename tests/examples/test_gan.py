"""GANs: the smoke version, the data, the Fréchet distance and its judge, the three losses, and what is learned."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from smoke import check_smoke
from torch import nn

from examples.gan.data import Images, batches, load, scaled
from examples.gan.distance import Moments, frechet, judge
from examples.gan.experiment import (
    DEFAULT,
    EXPERIMENT,
    VARIANTS,
    clip_weights,
    critic_loss,
    gradient_penalty,
    train,
)
from examples.gan.models import Critic, Generator
from examples.harness import RIVALS, DataError, cifar, main

CPU = torch.device("cpu")


def run(variant, seed=0, lr=3e-3, optimizer="adabelief", settings=DEFAULT):
    return list(train(variant, lambda p: RIVALS[optimizer].make(p, lr, settings), seed, settings, None, "digits"))


def with_extra(epochs, **extra):
    return replace(DEFAULT, epochs=epochs, extra={**DEFAULT.extra, **extra})


def linear_critic(slope):
    """A critic whose gradient is `slope` everywhere."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Flatten(0))
    with torch.no_grad():
        critic[1].weight.copy_(torch.tensor([slope]))
    return critic


def test_smoke(tmp_path):
    check_smoke(EXPERIMENT, tmp_path)


def test_digits_are_halved():
    images = load("digits", None)
    assert images.train.shape == (898, 1, 8, 8)
    assert images.test.shape == (899, 1, 8, 8)
    assert images.train.dtype == torch.uint8
    assert images.labels.shape == (898,)
    both = torch.cat([images.train, images.test]).flatten(1)
    assert len({tuple(image) for image in both.tolist()}) == 1797
    assert sorted(both.sum(1).tolist()) == sorted(
        (load_digits().images * 255 / 16).astype(np.uint8).reshape(1797, -1).sum(1).tolist()
    )
    assert (scaled(images.train).min(), scaled(images.train).max()) == (-1, 1)


def test_cifar10(tmp_path, monkeypatch):
    x = torch.randint(256, (20, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(20) % 10
    read = []
    monkeypatch.setattr(cifar, "read", lambda *arguments: read.append(arguments) or (x, labels, x[:10], labels[:10]))
    load.cache_clear()
    images = load("cifar10", tmp_path)
    load.cache_clear()
    assert read == [(cifar.CIFAR10, tmp_path)]
    assert torch.equal(images.train, x)
    assert torch.equal(images.test, x[:10])


def test_cifar10_of_a_folder_without_it(tmp_path, capsys):
    with pytest.raises(DataError, match=r"missing: data_batch_1"):
        load("cifar10", tmp_path)
    options = ["--dataset", "cifar10", "--data", str(tmp_path), "--out", str(tmp_path), "--smoke"]
    assert main(EXPERIMENT, options) == 2
    assert "missing: data_batch_1" in capsys.readouterr().err


def test_batches_see_every_image_once_before_any_twice():
    torch.manual_seed(0)
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    found = batches(images, 4)
    seen = torch.cat([next(found), next(found)]).flatten().tolist()
    assert len(set(seen)) == 8
    assert set(seen) <= set(scaled(images).flatten().tolist())
    assert torch.cat([next(found), next(found)]).flatten().tolist() != seen


# -- The Fréchet distance


def normal(mean, covariance):
    """Moments as such, without images."""
    moments = Moments.__new__(Moments)
    moments.mean = torch.tensor(mean, dtype=torch.float64)
    moments.covariance = torch.tensor(covariance, dtype=torch.float64)
    return moments


def random_normal(seed, dimensions=6):
    return Moments(torch.randn(200, dimensions, generator=torch.Generator().manual_seed(seed)))


def test_moments():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    moments = Moments(x)
    np.testing.assert_allclose(moments.mean, x.double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(x.double().numpy().T), rtol=1e-12)


def test_the_distance_to_itself_is_0():
    assert frechet(random_normal(0), random_normal(0)) == pytest.approx(0, abs=1e-12)


def test_the_distance_is_symmetric():
    a, b = random_normal(0), random_normal(1)
    assert frechet(a, b) > 0.01
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-10)


def test_the_distance_of_diagonal_normals_has_a_closed_form():
    """|μa - μb|² + Σ (σa - σb)²."""
    a, b = normal([0, 1], [[4, 0], [0, 9]]), normal([3, -1], [[1, 0], [0, 25]])
    assert frechet(a, b) == pytest.approx(9 + 4 + (2 - 1) ** 2 + (3 - 5) ** 2, rel=1e-12)


def test_the_distance_of_any_normals_is_that_of_another_formula():
    """tr (Σa Σb)^½ by the eigenvalues of the product, which is not symmetric."""
    a, b = random_normal(0), random_normal(1)
    b.covariance = 2 * b.covariance + 1
    roots = np.sqrt(np.linalg.eigvals((a.covariance @ b.covariance).numpy()).real).sum()
    expected = ((a.mean - b.mean) ** 2).sum() + a.covariance.trace() + b.covariance.trace() - 2 * roots
    assert frechet(a, b) == pytest.approx(expected.item(), rel=1e-9)


def test_the_distance_grows_with_a_perturbation():
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    other = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    for change in (lambda t: x + t, lambda t: x * (1 + t), lambda t: x + t * other):
        distances = [frechet(Moments(x), Moments(change(t))) for t in (0.0, 0.1, 0.3, 1.0)]
        assert distances == sorted(distances)
        assert distances[1] > distances[0] + 1e-4


def test_a_covariance_without_full_rank():
    """A generator that has collapsed makes one image."""
    assert frechet(normal([0, 0], [[0, 0], [0, 0]]), normal([0, 0], [[1, 0], [0, 4]])) == pytest.approx(5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_distance_of_what_is_not_finite_is_infinite(value):
    x = torch.randn(20, 3)
    y = x.clone()
    y[3, 1] = value
    assert frechet(Moments(x), Moments(y)) == frechet(Moments(y), Moments(x)) == math.inf


# -- The judge


def test_the_judge_knows_the_classes_and_is_the_same_every_time():
    images, made = load("digits", None), judge("digits", None, CPU)
    raw = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    labels = torch.from_numpy(raw.target)[order[898:]]
    assert (made.classifier(scaled(images.test)).argmax(1) == labels).float().mean() > 0.93
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = type(made)("digits", None, CPU)
    assert torch.equal(torch.rand(1), expected), "it took random numbers from the run"
    assert torch.equal(again.test.mean, made.test.mean)
    assert judge("digits", None, CPU) is made


def test_the_judge_puts_images_nearer_than_blurred_ones_and_noise():
    made, images = judge("digits", None, CPU), scaled(load("digits", None).test)
    blurred = nn.functional.avg_pool2d(images, 3, 1, 1)
    noise = 2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 1
    real, blur, chaos = (frechet(x, made.test) for x in (made.validation, made.moments(blurred), made.moments(noise)))
    assert real < blur / 10
    assert blur < chaos


# -- Networks and losses


@pytest.mark.parametrize(("size", "colours"), [(8, 1), (32, 3), (64, 3)])
def test_sizes(size, colours):
    images = Generator(size, colours, latent=5, width=4)(torch.randn(3, 5))
    assert images.shape == (3, colours, size, size)
    assert images.abs().max() <= 1
    assert Critic(size, colours, 4, spectral=False)(images).shape == (3,)


def test_the_spectral_norm_of_every_layer_is_1():
    torch.manual_seed(0)
    critic = Critic(8, 1, 8, spectral=True)
    for _ in range(50):  # each step of training improves the estimate
        critic(torch.randn(2, 1, 8, 8))
    weights = [layer.weight for layer in critic if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(weights) == 3
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("slope", [[3.0, 0.0, 4.0, 0.0], [0.6, 0.8, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0]])
def test_the_gradient_penalty_of_a_linear_critic(slope):
    """(‖slope‖ - 1)², wherever the points are, and with the derivative 2 (‖slope‖ - 1) slope / ‖slope‖."""
    critic, norm = linear_critic(slope), math.hypot(*slope)
    penalty = gradient_penalty(critic, torch.randn(5, 1, 2, 2), torch.randn(5, 1, 2, 2))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-6)
    penalty.backward()
    expected = 2 * (norm - 1) / norm * torch.tensor([slope])
    torch.testing.assert_close(critic[1].weight.grad, expected, atol=1e-5, rtol=1e-5)


def test_the_gradient_penalty_is_between_the_images():
    """A critic that is linear between 0 and 1 and flat elsewhere has a slope only there."""
    between = lambda x: x.flatten(1).clamp(0, 1).sum(1)  # noqa: E731
    assert gradient_penalty(between, torch.zeros(9, 1, 1, 1), torch.ones(9, 1, 1, 1)).item() == 0
    assert gradient_penalty(between, torch.full((9, 1, 1, 1), 2.0), torch.full((9, 1, 1, 1), 3.0)).item() == 1


def test_losses_of_the_critic():
    critic = linear_critic([2.0, 0.0, 0.0, 0.0])
    nn.init.zeros_(critic[1].bias)
    real, fake = torch.full((3, 1, 2, 2), 0.25), torch.full((3, 1, 2, 2), -1.0)
    loss = {variant: critic_loss(variant, critic, real, fake, {"penalty": 10.0}).item() for variant in VARIANTS}
    assert loss == pytest.approx({"wgan": -2 - 0.5, "wgan_gp": -2 - 0.5 + 10, "sn_gan": 0.5 + 0})


def test_clipped_weights():
    critic = Critic(8, 1, 8, spectral=False)
    clip_weights(critic, 0.01)
    values = torch.cat([parameter.flatten() for parameter in critic.parameters()])
    assert values.abs().max().item() == pytest.approx(0.01)
    assert values.abs().min() < 0.01


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_wgan_clips(variant, monkeypatch):
    clipped = []
    monkeypatch.setattr("examples.gan.experiment.clip_weights", lambda critic, bound: clipped.append(bound))
    run(variant, settings=with_extra(1, steps=2, critic_steps=3))
    assert clipped == ([0.01] * 6 if variant == "wgan" else [])


# -- Training


@pytest.mark.parametrize("variant", ["wgan_gp", "sn_gan"])
def test_it_learns_to_be_nearer_than_noise(variant):
    made = judge("digits", None, CPU)
    noise = 2 * torch.rand((900, 1, 8, 8), generator=torch.Generator().manual_seed(0)) - 1
    rows = run(variant, settings=with_extra(4))
    assert rows[-1]["frechet_distance"] < rows[0]["frechet_distance"]
    assert rows[-1]["frechet_distance"] < frechet(made.moments(noise), made.test) / 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_seed_determines_a_run(variant):
    short = with_extra(2, steps=2)
    assert run(variant, seed=1, settings=short) == run(variant, seed=1, settings=short)
    assert run(variant, seed=1, settings=short) != run(variant, seed=2, settings=short)


def test_tuning_and_judgement_see_different_images():
    (row,) = run("wgan", settings=with_extra(1, steps=1))
    assert row["frechet_distance"] != row["validation_frechet_distance"]
    assert not any((load("digits", None).test == image).flatten(1).all(1).any() for image in load("digits", None).train)


def test_milestones_divide_both_learning_rates(monkeypatch):
    made = []
    make = RIVALS["sgd"].make
    settings = replace(with_extra(2, steps=1), milestones=(1,))
    rows = train("wgan", lambda p: made.append(make(p, 0.5, settings)) or made[-1], 0, settings, None, "digits")
    rates = [[one.param_groups[0]["lr"] for one in made] for _ in rows]
    assert rates == [pytest.approx([0.05, 0.05])] * 2


@pytest.mark.parametrize("variant", ["wgan_gp", "sn_gan"])
def test_a_run_that_diverges_ends(variant):
    rows = run(variant, optimizer="sgd", lr=1e30, settings=with_extra(3, steps=4))
    assert len(rows) == 1
    assert not math.isfinite(rows[0]["frechet_distance"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_cifar10_trains(variant, tmp_path, monkeypatch):
    """The paper's settings, with few steps of small networks, on random images."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (80, 3, 32, 32), dtype=torch.uint8, generator=generator)
    monkeypatch.setattr("examples.gan.experiment.load", lambda *_: images)
    monkeypatch.setattr("examples.gan.distance.load", lambda *_: images)
    images = Images(x, torch.arange(80) % 10, x[:40])
    paper = EXPERIMENT.paper["cifar10"][variant]
    settings = replace(paper, epochs=1, extra={**paper.extra, "steps": 1, "width": 4, "samples": 100})
    (row,) = train(variant, lambda p: RIVALS["adabelief"].make(p, 2e-4, settings), 0, settings, tmp_path, "cifar10")
    assert all(math.isfinite(value) for value in row.values())
    assert (paper.epochs, paper.batch_size) == (100, 64)
