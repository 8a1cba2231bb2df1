"""The GAN experiment: three ways to train a generator, judged by the Fréchet distance to images it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from adabelief_core import presets
from examples.harness import Experiment, Settings

from .data import batches, load
from .distance import frechet, judge
from .models import Critic, Generator

VARIANTS = ("wgan", "wgan_gp", "sn_gan")


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Mean over images of (‖∇ critic‖₂ - 1)², at random points between each real and fake image.

    References:
        Gulrajani et al., "Improved Training of Wasserstein GANs", arXiv 1704.00028.
    """
    where = torch.rand(len(real), 1, 1, 1).to(real.device)
    between = torch.lerp(real, fake, where).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def critic_loss(variant: str, critic: nn.Module, real: Tensor, fake: Tensor, extra: Mapping[str, Any]) -> Tensor:
    """What the critic minimizes: the hinge loss for SN-GAN, the negative Wasserstein estimate for the others."""
    on_real, on_fake = critic(real), critic(fake)
    if variant == "sn_gan":
        return F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
    loss = on_fake.mean() - on_real.mean()
    return loss + extra["penalty"] * gradient_penalty(critic, real, fake) if variant == "wgan_gp" else loss


@torch.no_grad()
def clip_weights(critic: nn.Module, bound: float) -> None:
    """Put every weight of the critic into [-bound, bound], which bounds its slope (arXiv 1701.07875)."""
    for parameter in critic.parameters():
        parameter.clamp_(-bound, bound)


def train(
    variant: str,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    seed: int,
    settings: Settings,
    data: Path | None,
    dataset: str,
) -> Iterator[dict[str, float]]:
    """Train one generator and critic from one seed; a row every `steps` updates of the generator.

    The critic takes `critic_steps` updates, each on a new batch, for one of the generator. `train_loss` is the mean of
    the critic's. A run that diverges ends there.
    """
    extra = settings.extra
    device = torch.device("cuda" if data is not None and torch.cuda.is_available() else "cpu")
    images = load(dataset, data)
    distances = judge(dataset, data, device)
    torch.manual_seed(seed)
    _, colours, _, size = images.train.shape
    generator = Generator(size, colours, extra["latent"], extra["width"]).to(device)
    critic = Critic(size, colours, extra["width"], spectral=variant == "sn_gan").to(device)
    optimizers = [optimizer(generator.parameters()), optimizer(critic.parameters())]
    schedules = [MultiStepLR(one, list(settings.milestones), gamma=0.1) for one in optimizers]
    real = batches(images.train, settings.batch_size)

    def noise(count: int) -> Tensor:
        return torch.randn(count, extra["latent"]).to(device)

    for _ in range(settings.epochs):
        total = 0.0
        generator.train()
        for _ in range(extra["steps"]):
            for batch in islice(real, extra["critic_steps"]):
                fake = generator(noise(len(batch))).detach()
                loss = critic_loss(variant, critic, batch.to(device), fake, extra)
                total += loss.item()
                step(optimizers[1], loss)
                if variant == "wgan":
                    clip_weights(critic, extra["clip"])
            step(optimizers[0], -critic(generator(noise(settings.batch_size))).mean())
            if not math.isfinite(total):
                break
        for schedule in schedules:
            schedule.step()
        generator.eval()
        with torch.no_grad():
            made = distances.moments(torch.cat([generator(noise(100)) for _ in range(extra["samples"] // 100)]))
        yield {
            "train_loss": total / (extra["steps"] * extra["critic_steps"]),
            "frechet_distance": frechet(made, distances.test),
            "validation_frechet_distance": frechet(made, distances.validation),
        }
        if not math.isfinite(total):
            return


def step(optimizer: Optimizer, loss: Tensor) -> None:
    """One update of the optimizer's parameters."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


DEFAULT = Settings(
    epochs=4,
    batch_size=32,
    betas=presets.GAN["betas"],
    overrides={"adabelief": {"eps": presets.GAN["eps"]}},
    extra={
        "latent": 16,
        "width": 16,
        "steps": 16,
        "critic_steps": 5,
        "clip": 0.01,
        "penalty": 10.0,
        "samples": 900,
    },
)
# WGAN and WGAN-GP: the authors' main.py (PyTorch_Experiments/wgan and wgan-gp of github.com/juntang-zhuang/
# Adabelief-Optimizer): 100 epochs of CIFAR-10, a generator's update every five batches. They enlarge the images to
# 64×64; here they stay as they are. SN-GAN: SNGAN-adabelief.json of github.com/juntang-zhuang/SNGAN-AdaBelief:
# 100,000 updates of the generator, five of the critic for each, and rectification. Theirs is a residual network that is
# told the classes; here it is the network of the other two, which is told nothing.
PAPER = replace(
    DEFAULT,
    epochs=100,
    batch_size=64,
    extra={**DEFAULT.extra, "latent": 100, "width": 64, "steps": 156, "samples": 10000},
)
PAPER_SN_GAN = replace(
    PAPER,
    overrides={"adabelief": {name: presets.SN_GAN[name] for name in ("eps", "rectify")}},
    extra={**PAPER.extra, "latent": 128, "steps": 1000},
)

EXPERIMENT = Experiment(
    name="gan",
    title="Generative adversarial networks",
    variants=VARIANTS,
    metric="frechet_distance",
    better="lower",
    tuned_on="validation_frechet_distance",
    rates=10.0,
    settings=dict.fromkeys(VARIANTS, DEFAULT),
    train=train,
    datasets=("digits", "cifar10"),
    paper={"cifar10": {"wgan": PAPER, "wgan_gp": PAPER, "sn_gan": PAPER_SN_GAN}},
    smoke={"epochs": 1, "extra": {"steps": 2, "critic_steps": 1}},
)
