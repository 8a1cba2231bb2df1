"""The core's rule beside PyTorch's parameters: what each step should give, bit for bit."""

import numpy as np

from adabelief_core import Hyperparameters, coefficients, compensated, compute_dtype, update
from adabelief_core._inplace import as_reals
from adabelief_core.parity import compare
from adabelief_torch._parity import to_array


class Rule:
    """`adabelief_core.update` on copies of parameters, whose options may change from step to step.

    Args:
        params: The parameters.
    """

    def __init__(self, params):
        self.params = list(params)
        self.read_params()
        self.state = [np.zeros((4, *p.shape), compute_dtype(p.dtype)) for p in self.p]
        self.steps = [0] * len(self.p)

    def read_params(self):
        """Take over the parameters' values, where something else than a step has changed them."""
        self.p = [as_reals(to_array(p)) for p in self.params]

    def step(self, lr, scale=None, only=None, **options):
        """One step with the gradients that the parameters have.

        Args:
            lr: Learning rate.
            scale: What the gradients are divided by first.
            only: The parameters that take it. None: all.
            **options: Of `Hyperparameters`.
        """
        for i, param in enumerate(self.params):
            if param.grad is None or (only is not None and not any(param is one for one in only)):
                continue
            self.steps[i] += 1
            p, (m, s, v, k) = self.p[i], self.state[i]
            h = Hyperparameters(lr=lr, **options)
            g = as_reals(to_array(param.grad.resolve_conj().resolve_neg())).astype(m.dtype)
            wide = p.astype(m.dtype)
            if scale is not None:
                g = g / m.dtype.type(scale)
            delta, *new = update(wide, g, m, s, v, coefficients(h, self.steps[i], m.dtype), h.variant)
            if h.kahan_sum:
                delta, k = compensated(wide, delta, k, stored=lambda x, p=p: x.astype(p.dtype).astype(x.dtype))
            self.p[i], self.state[i] = (wide + delta).astype(p.dtype), np.stack([*new, k])

    def check(self, optimizer):
        """Assert that the parameters and the optimizer's moments have these bits."""
        assert self.params
        for param, p, state, step in zip(self.params, self.p, self.state, self.steps, strict=True):
            assert compare(as_reals(to_array(param)), p).count == 0
            known = optimizer.state.get(param)
            assert known or not step
            if known:
                assert known["step"] == step
                for key, x in zip(("exp_avg", "exp_avg_var"), state, strict=False):
                    assert compare(as_reals(to_array(known[key])), x).count == 0
                if "kahan_comp" in known:
                    assert compare(as_reals(to_array(known["kahan_comp"])), state[3]).count == 0


def host(value):
    """What a tensor of one element holds; a number as it is."""
    return value.item() if hasattr(value, "item") else value
