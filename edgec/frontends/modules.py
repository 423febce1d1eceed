"""torch modules to graphs, by the importer that takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgec.errors import FrontendError
from edgec.frontends.neurons.importer import from_neuron_module, has_neurons
from edgec.frontends.pytorch.importer import GUESS, Outputs, TimeAxis, check_ready, export, from_exported
from edgec.ir.graph import Graph


def from_module(
    module: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    name: str = "model",
    time_axis: TimeAxis = GUESS,
    outputs: Outputs = None,
) -> Graph:
    """Import a module as it behaves on inputs of these shapes. Batch 1; the module in eval mode.

    time_axis: the input axis that counts frames (one for every input, or one each); None for no time; by default
    axis 1 where the model has an operator on sequences. outputs: see `chosen_outputs`. FrontendError lists everything
    that cannot be imported.
    """
    if has_neurons(module):
        if outputs is not None:
            raise FrontendError(f"{name}: outputs cannot be chosen in a network of another library's neurons")
        return from_neuron_module(module, example_inputs, name, time_axis)
    check_ready(module, name)
    return from_exported(export(module, tuple(example_inputs), name), name, time_axis, outputs)
