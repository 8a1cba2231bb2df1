"""DCGAN's generator and critic for square images of 8 to 64 pixels.

References:
    Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks", arXiv 1511.06434.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def channels(size: int, width: int) -> list[int]:
    """Channels at each resolution from `size` / 2 down to the smallest, which is 2 pixels for 8, and 4 above.

    >>> channels(32, 64)
    [64, 128, 256]
    """
    steps = 2 if size == 8 else (size // 4).bit_length() - 1
    return [width << i for i in range(steps)]


class Generator(nn.Sequential):
    """Noise, float32 (images, latent), to images in [-1, 1], float32 (images, colours, size, size)."""

    def __init__(self, size: int, colours: int, latent: int, width: int) -> None:
        widths = channels(size, width)[::-1]
        smallest = size >> len(widths)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (latent, 1, 1)),
            nn.ConvTranspose2d(latent, widths[0], smallest, bias=False),
        ]
        for inputs, outputs in zip(widths, [*widths[1:], colours], strict=True):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)]
        super().__init__(*layers, nn.Tanh())
        self.latent = latent
        self.apply(initialize)


class Critic(nn.Sequential):
    """Images to scores, float32 (images,).

    No layer normalizes over the batch: the penalty of WGAN-GP is on the gradient of each image alone (arXiv 1704.00028,
    section 4), and the three variants share one network. With `spectral`, each layer's spectral norm is 1.
    """

    def __init__(self, size: int, colours: int, width: int, spectral: bool) -> None:
        def bounded(layer: Any) -> nn.Module:
            return spectral_norm(layer) if spectral else layer

        widths = channels(size, width)
        layers: list[nn.Module] = []
        for inputs, outputs in zip([colours, *widths], widths, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
        smallest = size >> len(widths)
        layers += [nn.Flatten(), nn.Linear(widths[-1] * smallest**2, 1), nn.Flatten(0)]
        for layer in layers:
            initialize(layer)
        super().__init__(*(bounded(layer) if isinstance(layer, nn.Conv2d | nn.Linear) else layer for layer in layers))


def initialize(layer: nn.Module) -> None:
    """DCGAN's initial weights: normal, with a standard deviation of 0.02."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def noise(images: int, latent: int, device: torch.device) -> Tensor:
    """Standard normal noise of shape (images, latent), drawn on the CPU so that a seed means the same everywhere."""
    return torch.randn(images, latent).to(device)
