"""WGAN, WGAN-GP and SN-GAN on images: `python -m examples.gan`."""
