"""Bad input is named, and nothing has changed."""

import inspect

import pytest
import torch
from torch_helpers import parameter, steps

from adabelief_torch import AdaBelief

INVALID = [
    ({"lr": -1}, ValueError, r"Invalid learning rate: -1 "),
    ({"lr": float("nan")}, ValueError, r"Invalid learning rate: nan"),
    ({"lr": "0.1"}, TypeError, r"Invalid learning rate: '0.1'"),
    ({"lr": torch.tensor(-1.0)}, ValueError, r"Invalid learning rate: -1.0"),
    ({"lr": torch.ones(2)}, ValueError, r"Tensor lr must be 1-element"),
    ({"eps": -1e-8}, ValueError, r"Invalid epsilon value: -1e-08"),
    ({"eps_root": -1.0}, ValueError, r"Invalid eps_root value: -1.0"),
    ({"betas": (1.0, 0.999)}, ValueError, r"Invalid beta parameter at index 0: 1.0"),
    ({"betas": (0.9, -0.1)}, ValueError, r"Invalid beta parameter at index 1: -0.1"),
    ({"betas": ([0.9], 0.999)}, TypeError, r"Invalid beta parameter at index 0: \[0.9\]"),
    ({"betas": 0.9}, ValueError, r"Invalid betas: 0.9"),
    ({"weight_decay": -0.1}, ValueError, r"Invalid weight_decay value: -0.1"),
    ({"update_clip": 0.0}, ValueError, r"Invalid update_clip: 0.0 \(expected None or a finite number > 0\)"),
    ({"update_clip": float("nan")}, ValueError, r"Invalid update_clip: nan"),
    ({"update_clip": torch.tensor(1.0)}, TypeError, r"Invalid update_clip: tensor"),
    ({"fixed_decay": True, "weight_decouple": False}, ValueError, r"Invalid fixed_decay: True"),
    *(
        ({name: 1}, TypeError, rf"Invalid {name}: 1 \(expected (None or )?a bool\)")
        for name in (
            *("weight_decouple", "fixed_decay", "rectify", "degenerated_to_sgd", "amsgrad", "nesterov", "maximize"),
            "foreach",
        )
    ),
]
invalid = pytest.mark.parametrize(("options", "error", "match"), INVALID)


@invalid
def test_the_constructor_refuses(options, error, match):
    with pytest.raises(error, match=match):
        AdaBelief([parameter(2)], **options)


@invalid
def test_a_group_that_is_added_is_refused(options, error, match):
    optimizer = AdaBelief([parameter(2)])
    with pytest.raises(error, match=match):
        optimizer.add_param_group({"params": [parameter(3)], **options})
    assert len(optimizer.param_groups) == 1


@invalid
def test_a_value_set_later_is_refused_before_any_group_steps(options, error, match):
    first, second = parameter(2), parameter(3)
    optimizer = AdaBelief([{"params": [first]}, {"params": [second]}])
    optimizer.param_groups[1].update(options)
    refuses(optimizer, error, match)


def refuses(optimizer, error, match, grads=None):
    """A step raises and leaves every parameter and state as it was."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i, p in enumerate(params):
        p.grad = grads[i] if grads else torch.ones_like(p)
    before = [p.detach().clone() for p in params]
    states = {p: {key: x.clone() for key, x in state.items()} for p, state in optimizer.state.items()}
    versions = [p._version for p in params]
    with pytest.raises(error, match=match):
        optimizer.step()
    assert [p._version for p in params] == versions
    assert all(map(torch.equal, params, before))
    assert optimizer.state.keys() == states.keys()
    for p, state in states.items():
        for key, x in state.items():
            assert torch.equal(optimizer.state[p][key], x)


def test_sparse_gradients():
    refuses(
        AdaBelief([parameter(2), parameter(3)]),
        RuntimeError,
        r"\['params'\]\[1\]: AdaBelief does not support sparse gradients, please consider SparseAdam instead",
        [torch.ones(2), torch.ones(3).to_sparse()],
    )


def test_parameters_whose_shape_changed_since_the_last_step():
    first, second = parameter(2), parameter(3)
    optimizer = AdaBelief([("first", first), ("second", second)])
    steps(optimizer, 1)
    second.grad = None
    second.data = torch.ones(4)
    refuses(optimizer, ValueError, r"\('second'\): Invalid state 'exp_avg': shape \[3\] \(expected \[4\]")


def test_parameters_whose_dtype_changed_since_the_last_step():
    p = parameter(2)
    optimizer = AdaBelief([p])
    steps(optimizer, 1)
    p.grad = None
    p.data = p.data.double()
    refuses(optimizer, ValueError, r"Invalid state 'exp_avg': torch.float32 on cpu \(expected torch.float64 on cpu")


def test_moments_replaced_by_others():
    p = parameter(2)
    optimizer = AdaBelief([p], amsgrad=True)
    steps(optimizer, 1)
    optimizer.state[p]["max_exp_avg_var"] = torch.zeros(5)
    refuses(optimizer, ValueError, r"Invalid state 'max_exp_avg_var': shape \[5\]")


def test_gradients_of_another_dtype():
    if not hasattr(torch.Tensor, "grad_dtype"):
        pytest.skip("this torch has no grad_dtype")
    p = parameter(2)
    p.grad_dtype = None
    refuses(AdaBelief([p]), ValueError, r"Invalid grad: dtype torch.float64", [torch.ones(2, dtype=torch.float64)])


def test_gradients_whose_parameter_changed_shape():
    p = parameter(2)
    optimizer = AdaBelief([p])
    p.grad = torch.ones(2)
    p.data = torch.ones(3)
    with pytest.raises(ValueError, match=r"Invalid grad: shape \[2\] \(expected \[3\], the parameter's\)"):
        optimizer.step()
    assert not optimizer.state


REFUSED = [
    (lambda: torch.zeros(3, dtype=torch.float8_e5m2).requires_grad_(), TypeError, "dtype torch.float8_e5m2"),
    (lambda: torch.zeros(1).expand(3).requires_grad_(), ValueError, r"share memory.*shape \[3\], strides \[0\]"),
    (lambda: torch.zeros(3, dtype=torch.complex64).conj().requires_grad_(), ValueError, "conjugated"),
    (lambda: torch.zeros(3).to_sparse().requires_grad_(), ValueError, "layout torch.sparse_coo"),
]


@pytest.mark.parametrize(("make", "error", "match"), REFUSED)
def test_parameters_that_no_step_could_change_in_place(make, error, match):
    with pytest.raises(error, match=rf"param_groups\[0\]\['params'\]\[1\]: .*{match}"):
        AdaBelief([parameter(2), make()])


def test_a_parameter_that_became_an_expanded_one():
    p = parameter(3)
    optimizer = AdaBelief([p])
    p.data = torch.zeros(1).expand(3)
    p.grad = torch.ones(3)
    with pytest.raises(ValueError, match="share memory"):
        optimizer.step()
    assert not optimizer.state


def test_a_parameter_without_requires_grad_may_be_of_any_kind():
    counter = torch.nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)
    optimizer = AdaBelief([parameter(2), counter])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    assert len(optimizer.state) == 1


def test_unknown_keywords_and_too_many_positions():
    for options in ({"learning_rate": 0.1}, {"beta1": 0.9}, {"epsilon": 1e-8}):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(options))}'"):
            AdaBelief([parameter(2)], **options)
    with pytest.raises(TypeError, match="positional arguments"):
        AdaBelief([parameter(2)], 1e-3, (0.9, 0.999), 1e-16, 0, False, True, False, False, True, False, None)


def test_the_errors_of_every_torch_optimizer():
    for params, error in (([], ValueError), (torch.zeros(2), TypeError), ([1.0], TypeError)):
        with pytest.raises(error):
            AdaBelief(params)


def test_nothing_is_printed(capsys):
    AdaBelief([parameter(2)], rectify=True, amsgrad=True, print_change_log=False)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="Invalid print_change_log: True"):
        AdaBelief([parameter(2)], print_change_log=True)


def test_the_positions_are_those_of_adabelief_pytorch():
    assert list(inspect.signature(AdaBelief).parameters)[:10] == [
        *("params", "lr", "betas", "eps", "weight_decay", "amsgrad", "weight_decouple", "fixed_decay", "rectify"),
        "degenerated_to_sgd",
    ]
