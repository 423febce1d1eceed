"""Every op of the IR, by the name it has in the text form. Adding an op is one class and one line here."""

from __future__ import annotations

from edgec.ops.activation import Softmax
from edgec.ops.base import Op
from edgec.ops.conv import Conv1d, Conv2d
from edgec.ops.dense import Linear, MatMul
from edgec.ops.eca import Eca, QEca
from edgec.ops.elementwise import Add, Affine, Clip, Div, Gelu, Mul, Relu, Relu6, Sigmoid, Sqrt, Sub, Tanh
from edgec.ops.integer.conv import QConv2d, QConv2dRequantize
from edgec.ops.integer.elementwise import QAffine
from edgec.ops.integer.linear import QLinear, QLinearRequantize, QLmuFir
from edgec.ops.integer.neuron import QLifSaturating
from edgec.ops.integer.norm import QLayerNorm
from edgec.ops.integer.pool import QAvgPool2d, QMaxPool2d, QMean
from edgec.ops.integer.product import QMatMul, QMul
from edgec.ops.integer.requantize import QAdd, QConv1d, QLut, Requantize
from edgec.ops.integer.scaler import QStdScale, QStdUnscale
from edgec.ops.integer.softmax import QSoftmax
from edgec.ops.integer.spiking import QLif, QRunningMean, QUnpack
from edgec.ops.integer.tflite import TfliteAdd, TfliteAvgPool2d, TfliteMean, TfliteMul, TfliteSoftmax
from edgec.ops.neurons.lif import Lif
from edgec.ops.neurons.snntorch import AlphaNeuron, SnnTorchNeuron
from edgec.ops.norm import LayerNorm
from edgec.ops.pool import AvgPool2d, MaxPool2d, Mean
from edgec.ops.recurrent import LmuMemory, LmuTaps
from edgec.ops.scaler import StdScale, StdUnscale
from edgec.ops.shape import Concat, Copy, Pad, Permute, Reshape, Slice
from edgec.ops.signal.log_mel import LogMel, QLogMel
from edgec.ops.timeline import Delay, DelayLine, HistoryToFeatures, RunningMean, Window
from edgec.ops.unary import (
    Abs,
    Elu,
    Exp,
    GeluTanh,
    Hardsigmoid,
    Hardswish,
    LeakyRelu,
    Log,
    Mish,
    Silu,
    Softplus,
)

OPS: dict[str, type[Op]] = {
    "abs": Abs,
    "add": Add,
    "affine": Affine,
    "alpha_neuron": AlphaNeuron,
    "avg_pool2d": AvgPool2d,
    "clip": Clip,
    "concat": Concat,
    "conv1d": Conv1d,
    "conv2d": Conv2d,
    "copy": Copy,
    "delay": Delay,
    "delay_line": DelayLine,
    "div": Div,
    "eca": Eca,
    "elu": Elu,
    "exp": Exp,
    "gelu": Gelu,
    "gelu_tanh": GeluTanh,
    "hardsigmoid": Hardsigmoid,
    "hardswish": Hardswish,
    "history_to_features": HistoryToFeatures,
    "layer_norm": LayerNorm,
    "leaky_relu": LeakyRelu,
    "lif": Lif,
    "linear": Linear,
    "lmu_memory": LmuMemory,
    "lmu_taps": LmuTaps,
    "log": Log,
    "log_mel": LogMel,
    "matmul": MatMul,
    "max_pool2d": MaxPool2d,
    "mean": Mean,
    "mish": Mish,
    "mul": Mul,
    "pad": Pad,
    "permute": Permute,
    "qadd": QAdd,
    "qaffine": QAffine,
    "qavg_pool2d": QAvgPool2d,
    "qconv1d": QConv1d,
    "qconv2d": QConv2d,
    "qconv2d_requantize": QConv2dRequantize,
    "qeca": QEca,
    "qlayer_norm": QLayerNorm,
    "qlif": QLif,
    "qlif_saturating": QLifSaturating,
    "qlinear": QLinear,
    "qlinear_requantize": QLinearRequantize,
    "qlmu_fir": QLmuFir,
    "qlog_mel": QLogMel,
    "qlut": QLut,
    "qmatmul": QMatMul,
    "qmax_pool2d": QMaxPool2d,
    "qmean": QMean,
    "qmul": QMul,
    "qrunning_mean": QRunningMean,
    "qsoftmax": QSoftmax,
    "qstd_scale": QStdScale,
    "qstd_unscale": QStdUnscale,
    "qunpack": QUnpack,
    "relu": Relu,
    "relu6": Relu6,
    "requantize": Requantize,
    "reshape": Reshape,
    "running_mean": RunningMean,
    "sigmoid": Sigmoid,
    "silu": Silu,
    "slice": Slice,
    "snntorch_neuron": SnnTorchNeuron,
    "softmax": Softmax,
    "softplus": Softplus,
    "sqrt": Sqrt,
    "std_scale": StdScale,
    "std_unscale": StdUnscale,
    "sub": Sub,
    "tanh": Tanh,
    "tflite_add": TfliteAdd,
    "tflite_avg_pool2d": TfliteAvgPool2d,
    "tflite_mean": TfliteMean,
    "tflite_mul": TfliteMul,
    "tflite_softmax": TfliteSoftmax,
    "window": Window,
}
