"""Every ATen call edgec imports: expressions here, functions in the literal table at the end of their file."""

from __future__ import annotations

from edgec.frontends.pytorch import layers, masks, own, series, simple
from edgec.frontends.pytorch.call import Converters
from edgec.ops.arithmetic import Mul

#: functions of one element, and what else one expression says
EXPRESSIONS: Converters = {
    "aten::abs": "abs(self)",
    "aten::celu": "elu(self, alpha=alpha, rate=1 / alpha)",
    "aten::elu": "elu(self, alpha=alpha, gain=scale, rate=input_scale)",
    "aten::exp": "exp(self)",
    "aten::hardsigmoid": "hardsigmoid(self)",
    "aten::hardswish": "hardswish(self)",
    "aten::leaky_relu": "leaky_relu(self, slope=negative_slope)",
    "aten::log": "log(self)",
    "aten::mish": "mish(self)",
    "aten::relu": "relu(self)",
    "aten::relu6": "relu6(self)",
    "aten::selu": "elu(self, alpha=1.6732632423543772, gain=1.0507009873554805)",
    "aten::sigmoid": "sigmoid(self)",
    "aten::silu": "silu(self)",
    "aten::sqrt": "sqrt(self)",
    "aten::square": lambda call: call.emit(Mul(), call.tensor("self"), call.tensor("self")),
    "aten::tanh": "tanh(self)",
}
CONVERTERS: Converters = {
    **EXPRESSIONS,
    **layers.CONVERTERS,
    **masks.CONVERTERS,
    **own.CONVERTERS,
    **series.CONVERTERS,
    **simple.CONVERTERS,
}

#: What to do instead of a call edgec does not import.
HINTS: dict[str, str] = {
    "aten::lstm": "recurrent layers are not imported; use edgec.nn.LMUMemory or edgec.nn.LIF",
    "aten::gru": "recurrent layers are not imported; use edgec.nn.LMUMemory or edgec.nn.LIF",
    "aten::rnn_tanh": "recurrent layers are not imported; use edgec.nn.LMUMemory or edgec.nn.LIF",
    "aten::fft_rfft": "use edgec.nn.LogMel for an audio front end, edgec.nn.LMUMemory for an LMU in FFT form",
    "aten::fft_irfft": "use edgec.nn.LMUMemory for an LMU in FFT form",
    "aten::stft": "use edgec.nn.LogMel for an audio front end",
    "aten::cumsum": "use edgec.nn.RunningMean for an any-time readout",
    "aten::embedding": "integer inputs are not supported; embed outside the model",
    "aten::gt": "a comparison makes a neuron by hand; use edgec.nn.LIF",
    "aten::ge": "a comparison makes a neuron by hand; use edgec.nn.LIF",
    "aten::group_norm": "use BatchNorm or LayerNorm",
    "aten::instance_norm": "use BatchNorm or LayerNorm",
    "aten::rms_norm": "use BatchNorm or LayerNorm",
    "aten::log_softmax": "leave it out, the scores before it have the same order, or use Softmax",
    "aten::argmax": "return the scores and take the largest outside the model",
    "aten::topk": "return the scores and take the largest outside the model",
    "aten::conv_transpose1d": "transposed convolutions are not imported",
    "aten::conv_transpose2d": "transposed convolutions are not imported",
    "aten::conv3d": "three-dimensional convolutions are not imported",
}
