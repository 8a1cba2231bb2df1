"""The authors' settings in PyTorch: the core's steps."""

import numpy as np
import pytest
import torch

import adabelief_core
from adabelief_torch import AdaBelief, presets


@pytest.mark.parametrize("name", adabelief_core.presets.__all__)
def test_a_preset_takes_the_cores_steps(name):
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    params = {"w": p.detach().numpy().copy()}
    ours = AdaBelief([p], **getattr(presets, name))
    core = adabelief_core.AdaBelief(params, **getattr(adabelief_core.presets, name))
    for g in np.float32([[0.5, -2.0, 3.0], [1.5, 0.25, -1.0]]):
        p.grad = torch.from_numpy(g.copy())
        ours.step()
        core.step({"w": g})
        np.testing.assert_array_equal(p.detach().numpy(), params["w"])


def test_they_are_the_cores():
    assert presets.__all__ == adabelief_core.presets.__all__
    assert presets.GAN is adabelief_core.presets.GAN
