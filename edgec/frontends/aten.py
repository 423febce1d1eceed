"""Every ATen call edgec imports: one literal table from its name to its converter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgec.frontends import aten_edgec as own
from edgec.frontends import aten_layers as layers
from edgec.frontends import aten_series as series
from edgec.frontends import aten_simple as simple
from edgec.frontends.aten_call import Call
from edgec.ops.elementwise import Add, Mul, Relu, Relu6, Sigmoid, Sqrt, Sub, Tanh

Converter = Callable[[Call], Any]

CONVERTERS: dict[str, Converter] = {
    "_operator::getitem": simple.getitem,
    "aten::_native_batch_norm_legit_no_training": layers.batch_norm,
    "aten::_softmax": simple.softmax,
    "aten::_to_copy": simple.cast,
    "aten::_unsafe_view": simple.to_result_shape,
    "aten::adaptive_avg_pool1d": layers.adaptive_avg_pool,
    "aten::adaptive_avg_pool2d": layers.adaptive_avg_pool,
    "aten::add": simple.binary(Add()),
    "aten::addmm": layers.addmm,
    "aten::alias": simple.same,
    "aten::avg_pool1d": layers.avg_pool1d,
    "aten::avg_pool2d": layers.avg_pool2d,
    "aten::batch_norm": layers.batch_norm,
    "aten::bmm": layers.matmul,
    "aten::cat": simple.cat,
    "aten::chunk": simple.split,
    "aten::clamp": simple.clamp,
    "aten::clamp_min": simple.clamp,
    "aten::clone": simple.same,
    "aten::concat": simple.cat,
    "aten::constant_pad_nd": simple.pad,
    "aten::contiguous": simple.same,
    "aten::conv1d": layers.conv1d,
    "aten::conv2d": layers.conv2d,
    "aten::detach": simple.same,
    "aten::div": simple.div,
    "aten::dropout": simple.dropout,
    "aten::expand": simple.expand,
    "aten::expand_as": simple.expand,
    "aten::feature_dropout": simple.dropout,
    "aten::flatten": simple.to_result_shape,
    "aten::full_like": simple.filled,
    "aten::gelu": simple.gelu,
    "aten::hardsigmoid": simple.hardsigmoid,
    "aten::hardswish": simple.hardswish,
    "aten::hardtanh": simple.clamp,
    "aten::index": series.index,
    "aten::layer_norm": layers.layer_norm,
    "aten::leaky_relu": simple.leaky_relu,
    "aten::lift_fresh_copy": simple.same,
    "aten::linear": layers.linear,
    "aten::matmul": layers.matmul,
    "aten::max_pool1d": layers.max_pool1d,
    "aten::max_pool2d": layers.max_pool2d,
    "aten::mean": simple.mean,
    "aten::mm": layers.matmul,
    "aten::mul": simple.binary(Mul()),
    "aten::neg": simple.neg,
    "aten::new_zeros": simple.filled,
    "aten::numpy_T": simple.transpose,
    "aten::ones_like": simple.filled,
    "aten::pad": simple.pad,
    "aten::permute": simple.permute,
    "aten::pow": simple.power,
    "aten::relu": simple.unary(Relu()),
    "aten::relu6": simple.unary(Relu6()),
    "aten::reshape": simple.to_result_shape,
    "aten::rsub": simple.rsub,
    "aten::scaled_dot_product_attention": layers.attention,
    "aten::select": simple.select,
    "aten::sigmoid": simple.unary(Sigmoid()),
    "aten::silu": simple.silu,
    "aten::slice": simple.slice_,
    "aten::softmax": simple.softmax,
    "aten::split": simple.split,
    "aten::split_with_sizes": simple.split,
    "aten::sqrt": simple.unary(Sqrt()),
    "aten::square": lambda call: call.emit(Mul(), call.tensor("self"), call.tensor("self")),
    "aten::squeeze": simple.to_result_shape,
    "aten::stack": simple.stack,
    "aten::std": series.deviation,
    "aten::sub": simple.binary(Sub()),
    "aten::sum": simple.total,
    "aten::t": simple.transpose,
    "aten::tanh": simple.unary(Tanh()),
    "aten::to": simple.cast,
    "aten::transpose": simple.transpose,
    "aten::unbind": simple.unbind,
    "aten::unflatten": simple.to_result_shape,
    "aten::unfold": series.unfold,
    "aten::unsqueeze": simple.to_result_shape,
    "aten::var": series.variance,
    "aten::view": simple.to_result_shape,
    "aten::zeros_like": simple.filled,
    "edgec::lif": own.lif,
    "edgec::lmu_memory": own.lmu_memory,
    "edgec::log_mel": own.log_mel,
    "edgec::running_mean": own.running_mean,
}

#: Calls without a result that matters: checks the exporter inserts.
IGNORED = frozenset({"aten::_assert_tensor_metadata", "aten::_assert_async", "aten::sym_constrain_range_for_size"})

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
    "aten::conv_transpose1d": "transposed convolutions are not imported",
    "aten::conv_transpose2d": "transposed convolutions are not imported",
    "aten::conv3d": "three-dimensional convolutions are not imported",
}
