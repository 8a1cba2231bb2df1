"""AdaBelief for PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo  # torch.compiler's would import the compiler at once
from torch.optim.optimizer import Optimizer, ParamsT, _use_grad_for_differentiable

from adabelief_torch._execute import run
from adabelief_torch._load import sealed, unseal
from adabelief_torch._memory import Places
from adabelief_torch._options import check_betas, completed, read
from adabelief_torch._plan import check_group, plan
from adabelief_torch._traced import run_traced


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
        betas: Decay rates (β1, β2) of the two moments, each in [0, 1): two numbers, or two tensors of one element.
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
        foreach: True: PyTorch's operations on many tensors at once. False: not them.
        kahan_sum: True: a compensated sum of the parameters, for pure bfloat16 training: what rounding a parameter
            drops is kept, in the arithmetic's dtype, and added later. None: off.
        update_clip: Bound of each element of u in line 7 of the rule, > 0: no step is longer than lr·k·update_clip, and
            k falls to 1. Where gradients are constant, or clipped by element (`clip_grad_value_`), or β1 is 0, g - m
            goes to 0, and without a bound the step grows and grows. None: no bound.
        capturable: True: the step count stays beside the parameter, and nothing of a step is read by the host, so that
            a CUDA graph can capture it. On a CPU, which captures nothing, the steps are the same.
        differentiable: True: autograd records the step. A learning rate, betas and weight decay that are tensors get
            gradients.
        fused: True: one compiled kernel, numba's (the extra `fast`) on a CPU, Triton's on CUDA, which also divides the
            gradients by a `torch.amp.GradScaler`'s scale. False: not Triton's. With None for both `foreach` and
            `fused`, the fastest that is there: the core's kernel on a CPU, Triton's on CUDA, foreach elsewhere.
        print_change_log: For scripts written for adabelief-pytorch, which pass False. Nothing is ever printed.

    Raises:
        ValueError: A value lies outside its range; the message names the argument and the value.
        TypeError: A value is of the wrong type, a parameter's dtype is not supported, or a keyword is unknown.
        RuntimeError: Two of `foreach`, `fused` and `differentiable` exclude each other, or `fused=True` asks for what a
            parameter's device cannot do.

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
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0,
        amsgrad: bool = False,
        weight_decouple: bool = True,
        fixed_decay: bool = False,
        rectify: bool = False,
        degenerated_to_sgd: bool = True,
        print_change_log: bool = False,
        *,
        eps_root: float | None = None,
        nesterov: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        kahan_sum: bool | None = None,
        update_clip: float | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
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
            "kahan_sum": kahan_sum,
            "update_clip": update_clip,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        read(defaults, host=True)
        check_betas(betas)
        self._places = Places()
        super().__init__(params, defaults)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asked by `torch.amp.GradScaler`: whether `step` divides by the scale, and skips what is not finite."""
        return bool(self.defaults["fused"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults = completed(self.defaults)  # type: ignore[has-type]
        for group in self.param_groups:
            group.update(completed(group))
        unseal(self.state)
        self._places = Places()

    @_disable_dynamo
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

    @_disable_dynamo
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a copy of a state: this optimizer's, or that of adabelief-pytorch, timm, or torch's Adam or AdamW.

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

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step, in place. Parameters without a gradient stay.

        Args:
            closure: Evaluates the model anew, with gradients, and returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: A gradient is sparse, or an option asks for what a parameter's device cannot do.
            ValueError, TypeError: An option, gradient or state is invalid, in any group. Nothing has changed.
        """
        self._accelerator_graph_capture_health_check()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            for group in self.param_groups:
                lists: tuple[list[Any], ...] = ([], [], [], [], [], [], [])
                self._init_group(group, *lists)
                run_traced(group, *lists)
        else:
            self._run()
        return loss

    # Past its limit of recompilations the compiler runs `step` eagerly, but would still look into what it calls.
    @_disable_dynamo
    def _run(self) -> None:
        batches = plan(self.param_groups, self.state, self._places)
        # Set for one step by a GradScaler.
        run(batches, getattr(self, "grad_scale", None), getattr(self, "found_inf", None))

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_vars: list[Tensor],
        max_exp_avg_vars: list[Tensor],
        kahan_comps: list[Tensor],
        steps: list[Tensor],
    ) -> None:
        """Check a group, begin its state and list its tensors: `torch.compile` runs this once, outside the graph."""
        for batch in plan([group], self.state, Places()):
            for task in batch.tasks:
                params.append(task.p)
                grads.append(task.p.grad)
                steps.append(task.state["step"])
                exp_avgs.append(task.state["exp_avg"])
                exp_avg_vars.append(task.state["exp_avg_var"])
                if batch.options.h.amsgrad:
                    max_exp_avg_vars.append(task.state["max_exp_avg_var"])
                if batch.options.h.kahan_sum:
                    kahan_comps.append(task.state["kahan_comp"])
