"""What a user's class, or a neuron changed after it was made, puts in the place of its library's methods.

A neuron is read off as parameters of the library's own equations, so whatever else defines its meaning must be the
library's. The comparison covers every method of every class that the library's class is made of.
"""

from __future__ import annotations

from inspect import getattr_static
from types import FunctionType
from typing import Any

from torch import nn

#: how a module is called; the rest of nn.Module says nothing about a neuron
CALLS = ("forward", "__call__", "_call_impl", "_wrapped_call_impl", "__getattr__", "__setattr__")
#: methods that change no spike: descriptions, and resets that run outside of a sequence or are traced with it
OUTSIDE = frozenset(
    """extra_repr supported_backends supported_step_mode to_lava detach detach_hidden reset_hidden reset_mem
    init_leaky""".split()  # noqa: SIM905
)
#: attributes that a neuron keeps its numbers in: a property of this name would compute them anew in every frame
NUMBERS = frozenset(
    """R C V alpha beta graded_spikes_factor inhibition mem recurrent reset_delay reset_mechanism_val spike_grad
    state_function state_quant surrogate_function syn tau threshold time_step v v_reset v_threshold w""".split()  # noqa: SIM905
)


def overrides(module: nn.Module, stock: type) -> list[str]:
    """What defines the neuron in another way than `stock`, the library's class: one sentence for each."""
    own, found = type(module), []
    for name in sorted(methods(stock)):
        mine, theirs = getattr_static(own, name, None), getattr_static(stock, name, None)
        if mine is not theirs:
            owner = next(c for c in own.__mro__ if name in vars(c))
            found.append(f"{owner.__name__}.{name} takes the place of {stock.__name__}.{name}")
        elif name in vars(module) and callable(vars(module)[name]):
            found.append(f"its {name} was replaced after it was made")
        elif is_foreign(theirs, stock):
            found.append(f"{stock.__name__}.{name} is no longer the library's")
    return [*found, *computed_numbers(module, own), *foreign_state_function(module, own)]


def methods(stock: type) -> set[str]:
    """Names of all that the library's classes define, but for what changes no spike."""
    classes = [c for c in stock.__mro__ if c not in (nn.Module, object)]
    names = {name for c in classes for name in vars(c) if not name.startswith("__")}
    return (names - OUTSIDE) | set(CALLS)


def is_foreign(value: Any, stock: type) -> bool:
    """Whether a method of the library's class was written elsewhere."""
    function = getattr(value, "__func__", value)  # of a static or class method
    libraries = (stock.__module__.split(".")[0], "torch")
    return isinstance(function, FunctionType) and function.__module__.split(".")[0] not in libraries


def computed_numbers(module: nn.Module, own: type) -> list[str]:
    """Parameters behind a property; one of torch.nn.utils.parametrize gives the same value in every frame."""
    fixed = getattr(module, "parametrizations", ())
    names = [n for n in sorted(NUMBERS) if n not in fixed and hasattr(getattr_static(own, n, None), "__get__")]
    return [f"{own.__name__}.{n} is computed" for n in names]


def foreign_state_function(module: Any, own: type) -> list[str]:
    """snnTorch keeps the method of its reset mechanism in an attribute: it must be the module's own."""
    kept = getattr(module, "state_function", None)
    if kept is None:
        return []
    method = getattr_static(own, getattr(kept, "__name__", ""), None)
    same = getattr(kept, "__func__", None) is method and getattr(kept, "__self__", None) is module
    return [] if same else ["its state_function was replaced after it was made"]
