"""The Fréchet distance between sets of images, in the feature space of a classifier of the same images."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import load, scaled

FEATURES = 16
EPOCHS = 10
BATCH = 64


class Moments:
    """Mean and covariance of features, float64.

    Args:
        features: shape (images, dimensions), more images than dimensions.

    Attributes:
        mean: shape (dimensions,).
        covariance: shape (dimensions, dimensions), unbiased.
    """

    def __init__(self, features: Tensor) -> None:
        features = features.double()
        self.mean, self.covariance = features.mean(0), features.T.cov()


def frechet(a: Moments, b: Moments) -> float:
    """The squared Fréchet (2-Wasserstein) distance of the normal distributions with these moments; inf if not finite.

    |μa - μb|² + tr(Σa + Σb - 2 (Σa^½ Σb Σa^½)^½). The trace of the root is the sum of the roots of the
    eigenvalues, which takes two symmetric eigenvalue problems and no general root of a matrix.

    >>> x = torch.randn(100, 3)
    >>> round(frechet(Moments(x), Moments(x + 2)), 6)
    12.0

    References:
        Dowson, Landau, "The Fréchet distance between multivariate normal distributions", 1982.
        Heusel et al., "GANs Trained by a Two Time-Scale Update Rule …", arXiv 1706.08500.
    """
    if not all(x.isfinite().all() for x in (a.mean, a.covariance, b.mean, b.covariance)):
        return math.inf
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    squared = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(squared.item(), 0.0)


class Classifier(nn.Module):
    """A small network that stops at FEATURES numbers an image, from which a linear layer tells the class."""

    def __init__(self, size: int, colours: int, classes: int) -> None:
        super().__init__()
        stages = (size // 4).bit_length()
        layers: list[nn.Module] = []
        for i in range(stages):
            layers += [nn.Conv2d(colours if i == 0 else 32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(32 * (size >> stages) ** 2, FEATURES)]
        self.features = nn.Sequential(*layers)
        self.classes = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(F.relu(self.features(images)))


@cache
def judge(dataset: str, folder: Path | None, device: torch.device) -> Judge:
    """The judge of a data set, made once a process."""
    return Judge(dataset, folder, device)


class Judge:
    """Measures how far generated images are from real ones.

    Its classifier is trained on the training images with Adam and a seed of its own: it is the same in all runs, and
    takes none of a run's random numbers.

    Args:
        dataset: As of `load`.
        folder: As of `load`.
        device: Where it computes.

    Attributes:
        classifier: In evaluation mode.
        validation: Moments of training images, at most as many as there are test images.
        test: Moments of the test images.
    """

    def __init__(self, dataset: str, folder: Path | None, device: torch.device) -> None:
        images = load(dataset, folder)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.classifier = Classifier(images.train.shape[-1], images.train.shape[1], 10).to(device)
            optimizer = torch.optim.Adam(self.classifier.parameters(), lr=3e-3)
            for _ in range(EPOCHS):
                for batch in torch.randperm(len(images.train)).split(BATCH):
                    scores = self.classifier(scaled(images.train[batch]).to(device))
                    optimizer.zero_grad()
                    F.cross_entropy(scores, images.labels[batch].to(device)).backward()
                    optimizer.step()
        self.classifier.eval()
        self.device = device
        self.validation = self.moments(scaled(images.train[: len(images.test)]))
        self.test = self.moments(scaled(images.test))

    @torch.no_grad()
    def moments(self, images: Tensor) -> Moments:
        """Moments of the features of these float32 images."""
        parts = images.split(1000)
        return Moments(torch.cat([self.classifier.features(part.to(self.device)).cpu() for part in parts]))
