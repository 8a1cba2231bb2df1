"""The paper's formulas in decimal arithmetic: what every implementation is off from."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, localcontext

from adabelief_core._hyperparameters import Decay


def paper(
    p: float,
    grads: Iterable[float],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-16,
    eps_root: float | None = None,
    weight_decay: float = 0.0,
    decay: Decay = "decoupled",
    rectify: bool = False,
    degenerated_to_sgd: bool = True,
    amsgrad: bool = False,
    nesterov: bool = False,
    digits: int = 50,
) -> list[Decimal]:
    """AdaBelief for one number: Algorithm 2 as printed, with the options as their own papers have them.

    It shares no line with `update`, whose order and scalars it does not know either: the two are held together by
    tests, and the deviation of other packages is measured from here.

    Args:
        p: The parameter at the start.
        grads: Its gradient at each step.
        lr: As for `Hyperparameters`, and so are the rest up to `nesterov`. Numbers are taken as float64 has them.
        betas: (β1, β2).
        eps: ε.
        eps_root: What is added to s. None: `eps`.
        weight_decay: λ.
        decay: The way of the weight decay.
        rectify: RAdam's rectification.
        degenerated_to_sgd: What it does while the variance is unknown.
        amsgrad: Divide by the largest s.
        nesterov: Nesterov momentum.
        digits: Decimal digits of the arithmetic.

    Returns:
        The parameter after each step.

    Example:
        >>> from adabelief_core.parity import paper
        >>> round(float(paper(1.0, [0.5, 0.5], lr=0.1)[-1]), 6)
        0.772088

    References:
        Zhuang et al., AdaBelief Optimizer, NeurIPS 2020, https://arxiv.org/abs/2010.07468, Algorithm 2;
        Liu et al., ICLR 2020, https://arxiv.org/abs/1908.03265 (rectification).
    """
    with localcontext() as context:
        context.prec = digits
        x, rate, denominator, shrink = Decimal(p), Decimal(lr), Decimal(eps), Decimal(weight_decay)
        root = denominator if eps_root is None else Decimal(eps_root)
        beta1, beta2 = map(Decimal, betas)
        m = s = v = Decimal(0)
        power1 = power2 = Decimal(1)
        path = []
        for t, gradient in enumerate(map(Decimal, grads), 1):
            g = gradient + shrink * x if decay == "coupled" else gradient
            power1, power2 = power1 * beta1, power2 * beta2
            m = beta1 * m + (1 - beta1) * g
            s = beta2 * s + (1 - beta2) * (g - m) * (g - m) + root
            v = max(v, s) if amsgrad else s
            first = m / (1 - power1)
            if nesterov:
                first = beta1 * m / (1 - power1 * beta1) + (1 - beta1) * g / (1 - power1)
            r = _rectification(t, beta2, power2) if rectify else None
            if not rectify:
                u = first / ((v / (1 - power2)).sqrt() + denominator)
            elif r is not None:
                u = r * first / ((v.sqrt() + denominator) / (1 - power2).sqrt())
            else:
                u = first if degenerated_to_sgd else Decimal(0)
            x -= rate * u + {"decoupled": rate * shrink, "fixed": shrink}.get(decay, Decimal(0)) * x
            path.append(x)
    return path


def _rectification(t: int, beta2: Decimal, power: Decimal) -> Decimal | None:
    limit = 2 / (1 - beta2) - 1
    rho = limit - 2 * t * power / (1 - power)
    if rho < 5:
        return None
    return ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)).sqrt()
