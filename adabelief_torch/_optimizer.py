"""AdaBelief for PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from adabelief_torch._execute import run, run_traced, traceable
from adabelief_torch._load import sealed, unseal
from adabelief_torch._memory import Arrays
from adabelief_torch._options import completed, hyperparameters
from adabelief_torch._plan import check_group, plan


class AdaBelief(Optimizer):
    r"""AdaBelief: steps far where the gradient is as predicted, and little where it is not.

    It is Adam with the second moment of the surprise, :math:`(g - m)^2`, in place of :math:`g^2`. The formula is in
    `adabelief_core.update`; every option can differ from group to group. With ε and ε_root of 1e-16 and without
    options it is Algorithm 2 of the paper.

    float16 and bfloat16 parameters have float32 moments, which `state_dict` and `load_state_dict` keep, and float32
    arithmetic; complex parameters are pairs of reals. Parameters change in place, gradients are only read. On a CPU the
    steps have the bits of NumPy's `adabelief_core.AdaBelief`.

    Args:
        params: Parameters, named parameters or dicts of a group each, as for any `torch.optim.Optimizer`: float16,
            bfloat16, float32, float64, complex64 or complex128, any shape, dense.
        lr: Learning rate, a number or a tensor of one element, >= 0.
        betas: Decay rates (β1, β2) of the two moments, each in [0, 1).
        eps: Added to the denominator, >= 0.
        weight_decay: Decay rate λ, >= 0.
        amsgrad: Divide by the largest second moment seen. Turned on later, it starts from there.
        weight_decouple: True: decay the parameters, as AdamW does. False: add λp to the gradient.
        fixed_decay: Decoupled decay by λ in place of lr·λ.
        rectify: Variance rectification of RAdam (the default of adabelief-pytorch, but not of the paper).
        degenerated_to_sgd: What rectification does in its first steps, while the variance is unknown. True: momentum
            SGD. False: no update.
        eps_root: Added to the second moment at every step, >= 0. None: the value of `eps`.
        nesterov: Nesterov momentum.
        maximize: Ascend in place of descending.
        foreach: None: on a CPU the core's kernel on the tensors' own memory, elsewhere PyTorch's operations on many
            tensors at once. True: those operations on a CPU too, which is slower there. False: elsewhere a tensor at
            a time, which needs less memory.
        print_change_log: For scripts written for adabelief-pytorch, which pass False. Nothing is ever printed.

    Raises:
        ValueError: A value lies outside its range; the message names the argument and the value.
        TypeError: A value is of the wrong type, a parameter's dtype is not supported, or a keyword is unknown.

    Example:
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> optimizer = AdaBelief([w], lr=0.1)
        >>> for _ in range(200):
        ...     optimizer.zero_grad()
        ...     w.square().sum().backward()
        ...     optimizer.step()
        >>> bool(w.abs().max() < 0.1)
        True

    References:
        Zhuang et al., AdaBelief Optimizer, NeurIPS 2020, https://arxiv.org/abs/2010.07468 (Algorithm 2).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0,
        amsgrad: bool = False,
        weight_decouple: bool = True,
        fixed_decay: bool = False,
        rectify: bool = False,
        degenerated_to_sgd: bool = True,
        *,
        eps_root: float | None = None,
        nesterov: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        print_change_log: bool = False,
    ) -> None:
        if print_change_log is not False:
            raise ValueError(f"Invalid print_change_log: {print_change_log!r} (expected False: nothing is printed)")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "eps_root": eps_root,
            "weight_decay": weight_decay,
            "weight_decouple": weight_decouple,
            "fixed_decay": fixed_decay,
            "rectify": rectify,
            "degenerated_to_sgd": degenerated_to_sgd,
            "amsgrad": amsgrad,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
        }
        hyperparameters(defaults)
        self._arrays = Arrays()
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults = completed(self.defaults)  # type: ignore[has-type]
        for group in self.param_groups:
            group.update(completed(group))
        unseal(self.state)
        self._arrays = Arrays()

    @torch.compiler.disable
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with the options in which it differs.

        Args:
            param_group: "params" and options, as for any `torch.optim.Optimizer`.

        Raises:
            ValueError, TypeError: As the constructor. No group has been added.
        """
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1], len(self.param_groups) - 1)
        except BaseException:
            self.param_groups.pop()
            raise

    @torch.compiler.disable
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a copy of a state: this optimizer's, or adabelief-pytorch 0.2.1's.

        Moments come back in the dtype of the arithmetic, float32 for half-precision parameters. Options that the saved
        groups lack keep the values that this optimizer has.

        Args:
            state_dict: What `state_dict` gave.

        Raises:
            ValueError, TypeError: The groups differ in number or size, a hyperparameter is invalid, or the state of
                a parameter lacks a key or has another shape. Nothing has changed.
        """
        # Last of the hooks, so that it sees what the user's leave.
        hook = self.register_load_state_dict_pre_hook(lambda _, given: sealed(self.param_groups, given))
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step, in place. Parameters without a gradient stay.

        Args:
            closure: Evaluates the model anew, with gradients, and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: A gradient is sparse.
            ValueError, TypeError: A hyperparameter, gradient or state is invalid, in any group. Nothing has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            # Not its groups: the compiler would guard, and so fix, what it sees read of an optimizer.
            for batch in traceable(self):
                run_traced(*batch)
        else:
            run(plan(self.param_groups, self.state, self._arrays), self._arrays)
        return loss
