"""Every op of the IR, by the name it has in the text form. Adding an op is one class and one line here."""

from __future__ import annotations

from edgec.ops.base import Op
from edgec.ops.conv import Conv1d, Conv2d
from edgec.ops.dense import Linear, MatMul
from edgec.ops.elementwise import Add, Affine, Div, Gelu, Mul, Relu, Relu6, Sigmoid, Sub, Tanh
from edgec.ops.pool import Mean
from edgec.ops.quantized import QAdd, QConv1d, QLif, QLinear, QLmuFir, QLut, QRunningMean, Requantize
from edgec.ops.recurrent import LmuMemory, LmuTaps
from edgec.ops.shape import Concat, Permute, Reshape
from edgec.ops.spiking import Lif
from edgec.ops.timeline import Delay, DelayLine, HistoryToFeatures, RunningMean

OPS: dict[str, type[Op]] = {
    "add": Add,
    "affine": Affine,
    "concat": Concat,
    "conv1d": Conv1d,
    "conv2d": Conv2d,
    "delay": Delay,
    "delay_line": DelayLine,
    "div": Div,
    "gelu": Gelu,
    "history_to_features": HistoryToFeatures,
    "lif": Lif,
    "linear": Linear,
    "lmu_memory": LmuMemory,
    "lmu_taps": LmuTaps,
    "matmul": MatMul,
    "mean": Mean,
    "mul": Mul,
    "permute": Permute,
    "qadd": QAdd,
    "qconv1d": QConv1d,
    "qlif": QLif,
    "qlinear": QLinear,
    "qlmu_fir": QLmuFir,
    "qlut": QLut,
    "qrunning_mean": QRunningMean,
    "relu": Relu,
    "relu6": Relu6,
    "requantize": Requantize,
    "reshape": Reshape,
    "running_mean": RunningMean,
    "sigmoid": Sigmoid,
    "sub": Sub,
    "tanh": Tanh,
}
