"""One step graph that holds every integer kernel in many shapes and modes, each node on an input of its own."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from edgec.backends.emit import write_folder
from edgec.device import Device, open_device
from edgec.ir.evaluate import StepRunner
from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.ops import (
    Pad,
    QAdd,
    QAvgPool2d,
    QConv1d,
    QConv2d,
    QConv2dRequantize,
    QEca,
    QLayerNorm,
    QLif,
    QLinear,
    QLinearRequantize,
    QLut,
    QMatMul,
    QMaxPool2d,
    QMean,
    QMul,
    QRunningMean,
    QUnpack,
    Requantize,
    TfliteAdd,
    TfliteAvgPool2d,
    TfliteMean,
    TfliteMul,
    TfliteSoftmax,
)
from edgec.ops.eca import sigmoid_table
from edgec.ops.integer.softmax import exponent
from edgec.plan import Plan
from edgec.target import load_target
from edgec.toolchain.manifest import Manifest, TensorSpec, read_manifest
from tests.kernels.node_builder import Builder, frame_type, storage

Arrays = dict[str, np.ndarray]


def add_products(b: Builder) -> None:
    """QLinear and QConv1d on spikes and on int8."""
    for c, o in ((128, 128), (128, 12), (40, 1), (33, 20), (64, 21), (7, 4), (300, 37)):
        b.add(QLinear(), (frame_type(DType.BIT, 1, 1, c), 1), (b.int8(c, o), "int8"), (b.ints(-999, 999, o), "int32"))
    for c, o, rows, rate in (
        (128, 20, 1, 0.9), (40, 13, 3, 0.8), (96, 3, 1, 0.5), (37, 1, 2, 0.6), (64, 9, 4, 0.1), (700, 18, 1, 0.9),
        (100, 24, 2, 0.5),
    ):  # fmt: skip
        x, w = (frame_type(DType.BIT, 1, rows, c), 1), b.ints(60, 128, c, o) if c == 700 else b.int8(c, o)
        b.add(QLinear(spike_rate=rate), x, (w, "int8"), (b.ints(-999, 999, o), "int32"))
    for op, c in ((QConv1d(spike_rate=0.9), 64), (QConv1d(dilation=2, spike_rate=0.8), 37)):
        for o in (20, 2):
            x, w = (frame_type(DType.BIT, 1, 2 * op.dilation + 1, c), 1), (b.int8(3, c, o), "int8")
            b.add(op, x, w, (b.ints(-999, 999, o), "int32"))
    for c, o, rows in ((120, 12, 1), (37, 13, 2), (3, 2, 1), (8, 5, 1)):
        x = frame_type(DType.I8, 1, rows, c)
        b.add(QLinear(), (x, 128), (b.int8(c, o), "int8"), (b.ints(-999, 999, o), "int32"))
    overflowing = (b.ints(100, 128, 700, 18), b.ints(100, 128, 1201, 9))  # spikes in segments, inputs in chunks
    b.add(QLinear(), (frame_type(DType.BIT, 1, 1, 700), 1), (overflowing[0], "int8"), (b.ints(-9, 9, 18), "int32"))
    b.add(QLinear(), (frame_type(DType.I8, 1, 1, 1201), 128), (-overflowing[1], "int8"), (b.ints(-9, 9, 9), "int32"))
    b.add(QLinear(), (frame_type(DType.I8, 1, 1, 6), 128), (np.full((6, 3), -128), "int8"), (np.zeros(3), "int32"))
    b.add(QLinear(), (frame_type(DType.I16, 1, 1, 6), 999), (b.int8(6, 3), "int8"), (np.zeros(3), "int32"))
    for rows, c, o in ((1, 16, 8), (2, 40, 4)):
        x, w = (frame_type(DType.I16, 1, rows, c), 32768), (b.int8(c, o), "int8")
        b.add(QLinear(), x, w, (b.ints(-999, 999, o), "int32"))
    for dtype in (DType.BIT, DType.I8):
        for op, frames, c in (
            (QConv1d(), 3, 64), (QConv1d(), 3, 40), (QConv1d(dilation=2), 5, 32), (QConv1d(dilation=2), 5, 40),
            (QConv1d(groups=2), 3, 40), (QConv1d(pad=(1, 1), pad_value=1, stride=2), 7, 40),
        ):  # fmt: skip
            w = (b.int8(3, c // op.groups, 20), "int8")
            b.add(op, (frame_type(dtype, 1, frames, c), 128), w, (b.ints(-999, 999, 20), "int32"))


def add_pools(b: Builder) -> None:
    """Windows on the image, into padding and wholly on it, and with more taps than compilers copy."""
    for shape, kernel, stride, pad in (
        ((1, 7, 6, 13), (3, 2), (2, 1), (1, 1, 1, 1)), ((2, 5, 5, 8), (3, 5), (1, 3), (3, 2, 2, 4)),
        ((1, 9, 8, 21), (9, 8), (9, 8), (0, 0, 0, 0)),
    ):  # fmt: skip
        x = (TensorType(shape, DType.I8), 128)
        mean = QAvgPool2d(kernel, stride, pad, -5, 1.0, 3, -5, 1000, 16)
        b.add(QMaxPool2d(kernel, stride, pad), x)
        b.add(mean, x)
        b.add(dataclasses.replace(mean, pad_value=7), x)
        if pad != (3, 2, 2, 4):  # windows of which nothing counts have no mean
            b.add(TfliteAvgPool2d(kernel, stride, pad), x)
            b.add(dataclasses.replace(mean, multiplier=60000, half_even=True, counted=(0, 0, 0, 0)), x)


def add_rows(b: Builder) -> None:
    """QLinear and QLinearRequantize over several rows of int8."""
    for rows, c, o in ((3, 64, 8), (4, 37, 3), (8, 1, 2), (5, 18, 7), (7, 8, 12)):
        x, w = (frame_type(DType.I8, 1, rows, c), 128), (b.int8(c, o), "int8")
        bias = (b.ints(-9999, 9999, o), "int32")
        b.add(QLinear(), x, w, bias)
        for op, shift in (
            (QLinearRequantize("int8", 1.0, -9), (33, 45)),
            (QLinearRequantize("int8", 1.0, 90, -30, 88), (26, 36)),
            (QLinearRequantize("int16", 1.0, 0, -32768, 32767), (26, 36)),
            (QLinearRequantize("int16", 1.0, 0, -32768, 999), (33, 36)),
            (QLinearRequantize("int8", 1.0, 3, rounding="tflite"), (32, 44)),
        ):
            b.add(op, x, w, bias, (b.ints(1 << 30, 1 << 31, o), "int32"), (b.ints(*shift, o), "int32"))
    x, bias = (frame_type(DType.I8, 1, 4, 700), 128), (b.ints(-9, 9, 6), "int32")
    scales = (b.ints(1 << 30, 1 << 31, 1), "int32"), (b.ints(44, 45, 1), "int32")
    b.add(QLinearRequantize(), x, (b.ints(100, 128, 700, 6), "int8"), bias, *scales)  # sums beyond 24 bits
    vanishing = (
        (np.array([0, 1 << 30, 1 << 30, 1 << 30, 0, 1 << 30]), "int32"),
        (np.array([31, 62, 36, 60, 31, 40]), "int32"),
    )
    b.add(
        QLinearRequantize("int8", 1.0, 7),
        (frame_type(DType.I8, 1, 3, 20), 128),
        (b.int8(20, 6), "int8"),
        bias,
        *vanishing,
    )
    x = (frame_type(DType.I8, 1, 2, 20), 128)  # two rows: fewer than a block
    for shift in ((33, 45), (26, 36), (26, 45)):
        scales = (b.ints(1 << 30, 1 << 31, 6), "int32"), (b.ints(*shift, 6), "int32")
        b.add(QLinearRequantize("int16", 1.0, 0, -32768, 32767), x, (b.int8(20, 6), "int8"), bias, *scales)


def add_neurons(b: Builder) -> None:
    """Every mode of QLif, on whole words of neurons and on parts."""
    modes = [(1 << 14, True), (12345, True), (29999, True), (1 << 15, True), (1 << 14, False), (29999, False)]
    resets = [(r, s, d) for r in ("hard", "subtract", "none") for s in (False, True) for d in (False, True)]
    for number, (decay, decay_input) in enumerate(modes):
        for k, (reset, strict, delayed) in list(enumerate(resets))[number % 2 :: 2]:
            dtype = (DType.I32, DType.I16, DType.I8)[(number + k) % 3]
            c = (64, 37, 3, 96)[(number + k) % 4]
            op = QLif(decay, decay_input, reset, strict, delayed, membrane=k % 4 == 3)
            x = (frame_type(dtype, 1, 1, c), 128 if dtype is DType.I8 else 1000)
            threshold = b.ints(-200, 9000, c)
            threshold[0] = 0
            b.add(op, x, (b.ints(1, 30, c), "int32"), (b.ints(-99, 999, c), "int32"), (threshold, "int32"))


def add_elementwise(b: Builder) -> None:
    """Requantize, QAdd, QLut and the running mean."""
    wide = 1 << 31
    for rounding in ("single", "tflite"):
        for dtype, c, per_channel, low, high, shift in (
            ("int8", 64, True, -128, 127, (33, 50)), ("int16", 64, True, -32768, 32767, (33, 50)),
            ("int8", 37, True, -7, 99, (33, 63)), ("int8", 12, False, -128, 127, (36, 37)),
            ("int16", 8, False, -99, 30000, (31, 34)), ("int8", 9, True, -128, 127, (31, 63)),
            ("int16", 12, True, -32768, 32767, (25, 37)), ("int8", 8, True, -128, 127, (25, 37)),
            ("int8", 7, False, -20, 127, (28, 29)), ("int16", 36, True, -32768, 32767, (25, 55)),
            ("int8", 11, True, -99, 127, (25, 55)),
        ):  # fmt: skip
            n = c if per_channel else 1
            op = Requantize(dtype, 1.0, 5, low, high, rounding)
            x = (frame_type(DType.I32, 1, 2, c), wide)
            b.add(op, x, (b.ints(1 << 30, wide, n), "int32"), (b.ints(*shift, n), "int32"))
    for low, high, per_channel in ((-128, 127, False), (-90, 20, True)):  # of stored integers
        for dtype in (DType.I8, DType.I16):
            x, n = (frame_type(dtype, 1, 2, 12), 1 << 15), 12 if per_channel else 1
            scales = (b.ints(1 << 30, wide, n), "int32"), (b.ints(28, 36, n), "int32")
            b.add(Requantize("int8", 1.0, -9, low, high), x, *scales)
            b.add(Requantize("int16", 1.0, 0, -32768, 32767), x, *scales)
    a, i16, i32 = (frame_type(t, 1, 2, 9) for t in (DType.I8, DType.I16, DType.I32))
    b.add(QAdd("int8", 1.0, 5, 3, -4, -1234, 20000, 13, -128, 127), (a, 128), (i16, 32768))
    b.add(QAdd(), (i16, 32768), (i32, wide))
    b.add(QLut(), (a, 128), (b.ints(-128, 128, 256), "int8"))
    for window in (0, 1, 5):
        scales = (b.ints(1 << 30, wide, 12), "int32"), (b.ints(36, 44, 12), "int32")
        b.add(QRunningMean(window, 1.0, -11), (frame_type(DType.I32, 1, 1, 12), 1 << 16), *scales)


def add_images(b: Builder) -> None:
    """Convolutions of images with both roundings, and TFLite's add, average pool, softmax and pad."""
    for image, kernel, o, depthwise, fields in (
        ((2, 4, 3, 64), (1, 1), 20, False, {}),
        ((1, 6, 5, 8), (3, 3), 7, False, {"pad": (1, 1, 1, 1), "pad_value": -77, "lo": -3, "hi": 99}),
        ((1, 9, 8, 3), (3, 3), 8, False, {"stride": (2, 2), "pad": (0, 1, 0, 1), "pad_value": 9}),
        ((1, 12, 6, 1), (10, 4), 16, False, {"stride": (2, 2), "pad": (4, 5, 1, 1), "pad_value": 83}),
        ((1, 7, 7, 12), (3, 2), 5, False, {"dilation": (2, 3), "pad": (2, 2, 1, 2), "pad_value": -128}),
        ((2, 7, 5, 12), (3, 3), 12, True, {"pad": (1, 1, 1, 1), "pad_value": -128}),
        ((1, 6, 6, 8), (2, 3), 8, True, {"stride": (2, 1), "dilation": (1, 2), "lo": -5, "hi": 7}),
        ((1, 4, 4, 6), (3, 3), 6, True, {"pad": (1, 1, 1, 1), "pad_value": 5}),
        ((1, 4, 4, 4), (2, 2), 8, True, {}),
        ((1, 5, 6, 5), (3, 3), 4, False, {"dilation": (1, 2), "pad": (1, 1, 2, 2), "pad_value": 3}),
        ((2, 3, 5, 7), (3, 2), 6, False, {}),
        ((1, 5, 5, 8), (1, 1), 6, False, {"stride": (2, 2)}),
        ((1, 8, 8, 8), (3, 3), 8, True, {"stride": (2, 2), "pad": (0, 1, 0, 1), "pad_value": -5}),
        ((2, 9, 11, 4), (3, 3), 4, True, {"stride": (2, 2), "pad": (1, 1, 1, 1), "pad_value": 99}),
        ((1, 3, 7, 8), (3, 3), 8, True, {"pad": (1, 1, 2, 0), "pad_value": -5, "lo": -50, "hi": 60}),
        ((1, 8, 3, 4), (3, 3), 4, True, {"pad": (2, 1, 1, 1), "pad_value": -5}),
        ((1, 6, 6, 4), (3, 3), 4, True, {}),
        ((1, 2, 2, 4), (3, 3), 4, True, {"pad": (1, 1, 1, 1), "pad_value": 7}),
        ((1, 6, 7, 8), (3, 3), 8, True, {"pad": (1, 1, 1, 1), "pad_value": 3, "lo": -7}),
        ((1, 7, 9, 4), (3, 3), 4, True, {"stride": (2, 2), "pad": (1, 1, 1, 1), "lo": -1}),
    ):  # fmt: skip
        if not fields.get("lo"):
            op = QConv2d(groups=image[3] if depthwise else 1, **fields)
            x = (TensorType(image, DType.I8), 128)
            w = (b.int8(*kernel, image[3] // op.groups, o), "int8")
            b.add(op, x, w, (b.ints(-9999, 9999, o), "int32"))
        for rounding in ("tflite", "single"):
            groups = image[3] if depthwise else 1
            op = QConv2dRequantize(groups=groups, zero_point=-7, rounding=rounding, **fields)
            x = (TensorType(image, DType.I8), 128)
            w = (b.int8(*kernel, image[3] // groups, o), "int8")
            factors = (b.ints(1 << 30, 1 << 31, o), "int32"), (b.ints(33, 45, o), "int32")
            b.add(op, x, w, (b.ints(-9999, 9999, o), "int32"), *factors)
    x, wide = (TensorType((1, 3, 3, 160), DType.I8), 128), b.ints(100, 128, 3, 3, 160, 6)  # sums beyond 24 bits
    factors = (b.ints(1 << 30, 1 << 31, 1), "int32"), (b.ints(40, 45, 1), "int32")
    b.add(QConv2dRequantize(rounding="tflite"), x, (wide, "int8"), (np.zeros(6), "int32"), *factors)
    x, w = (TensorType((1, 5, 5, 4), DType.I8), 128), b.int8(3, 3, 1, 4)
    w[..., 1] = 0
    for rounding, shift in (("tflite", (33, 60, 40, 62)), ("single", (28, 60, 40, 62))):  # raised, constant, plain
        scales = (b.ints(1 << 30, 1 << 31, 4), "int32"), (np.array(shift), "int32")
        b.add(QConv2dRequantize(groups=4, rounding=rounding), x, (w, "int8"), (b.ints(-99, 99, 4), "int32"), *scales)
    a = (TensorType((1, 5, 6, 3), DType.I8), 128)
    for sign in (1, -1):
        b.add(TfliteAdd(1.0, 4, -128, 9, 1 << 30, 0, 1234567890, 2, 2000000000, 19, sign), a, a)
    for pad in ((0, 0, 0, 0), (1, 0, 1, 1)):
        b.add(TfliteAvgPool2d((3, 2), (2, 1), pad), a)
    add_pools(b)
    row = (TensorType((1, 1, 1, 3), DType.I8), 128)
    for right, multiplier, shift in ((a, 1234567890, 38), (row, 2**31 - 1, 33), (a, 0, 31), (row, 1 << 30, 30)):
        b.add(TfliteMul(1.0, 4, -128, 9, multiplier, shift, -100, 120), a, right)
    for axis, multiplier, shift in ((1, 1234567890, 34), (2, 1 << 29, 30), (3, 2000000000, 33)):
        b.add(TfliteMean(axis, 1.0, 5, -7), a, (np.array([multiplier]), "int32"), (np.array([shift]), "int32"))
    table = np.maximum((2.0**31 - 1) * np.exp(-0.06 * np.arange(125)), 0).astype(np.int64)
    b.add(TfliteSoftmax(), a, (np.append(table, 0), "int32"))
    b.add(Pad((0, 0, 1, 2, 0, 3, 0, 0), -128), a)


def add_attention(b: Builder) -> None:
    """Layer norm, softmax, products of computed tensors."""
    for dtype, c, step in (("int8", 96, 15), ("int16", 37, 9), ("int8", 8, 17)):
        for x in (frame_type(DType.I16, 1, 3, c), frame_type(DType.I8, 1, 2, c)):
            lo, hi = DType(dtype).range
            op = QLayerNorm(dtype, 1.0, 3, 99, step, lo, hi)
            offset = (b.ints(-hi << step - 1, hi << step - 1, c), "int32")
            b.add(op, (x, 1 << 15), (b.ints(-(1 << 30), 1 << 30, c), "int32"), offset)
    for dtype, reach, scale in (
        (DType.I8, 128, 0.05), (DType.I8, 128, 20.0), (DType.I16, 1 << 15, 3e-4), (DType.I32, (1 << 30) - 1, 1e-8),
    ):  # fmt: skip
        for c in (64, 5):
            b.add(exponent(scale), (TensorType((1, 2, 3, c), dtype), reach))
    for dtype, m, k, n, fields in (
        (DType.I8, 16, 32, 16, {"transpose_b": True}), (DType.I16, 16, 16, 32, {}), (DType.I8, 5, 7, 6, {"za": -9}),
        (DType.I16, 3, 9, 5, {"transpose_b": True, "za": 7, "zb": -128}), (DType.I8, 1, 64, 1, {"zb": 127}),
    ):  # fmt: skip
        right = (n, k) if "transpose_b" in fields else (k, n)
        left = (TensorType((1, 3, m, k), dtype), 1 << 15)
        b.add(QMatMul(**fields), left, (TensorType((1, 3, *right), DType.I8), 128))
    a, i16 = (TensorType((1, 4, 9), t) for t in (DType.I8, DType.I16))
    row = TensorType((1, 4, 1), DType.I16)
    b.add(QMul("int16", 1.0, 0, 0, 0, 1234567890, 46), (i16, 1 << 15), (i16, 1 << 15))
    b.add(QMul("int8", 1.0, 5, -128, 3, 1 << 30, 38, -100, 90), (a, 128), (a, 128))
    b.add(QMul("int16", 1.0, 0, 0, 0, 2**31 - 1, 40), (a, 128), (row, 1 << 15))


def add_gates(b: Builder) -> None:
    """Channel attention: filters of several lengths, zero points at the ends, both types in and out."""
    for shape, taps in (((1, 5, 4, 8), 1), ((2, 3, 3, 13), 3), ((1, 8, 8, 3), 7), ((1, 1, 1, 1), 5)):
        for x, x_zero, y, zero, top in (
            (DType.I8, -128, "int8", 9, 8_000_001),
            (DType.I8, 5, "int16", 0, 8_000_001),
            (DType.I16, 0, "int8", -128, 65_000),
        ):
            op = QEca(y, 1.0, zero, x_zero, 25, top, 17)
            filters = (b.ints(-(1 << 23), 1 << 23, taps), "int32")
            b.add(op, (TensorType(shape, x), 1 << 15), filters, (sigmoid_table(), "int16"))


def add_spikes(b: Builder) -> None:
    """Spikes as integers, means of spikes and activations, and neurons whose parameters repeat."""
    for op, shape in (
        (QUnpack(), (1, 1, 64)), (QUnpack("int8", 1.0, -128, -128, 127), (1, 3, 37)),
        (QUnpack("int8", 1.0, 0, 90, -7), (1, 2, 3)), (QUnpack("int16", 1.0, 0, -999, 32767), (1, 2, 40)),
    ):  # fmt: skip
        b.add(op, (frame_type(DType.BIT, *shape), 1))
    for dtype, c, zero in ((DType.BIT, 40, 0), (DType.I8, 12, -128), (DType.I16, 5, 0)):
        for window in (0, 3):
            scales = (b.ints(1 << 30, 1 << 31, c), "int32"), (b.ints(30, 36, c), "int32")
            b.add(QRunningMean(window, 1.0, -11, zero), (frame_type(dtype, 1, 1, c), 1 << 15), *scales)
        scales = (b.ints(1 << 30, 1 << 31, c), "int32"), (b.ints(28, 34, c), "int32")
        b.add(QMean(1, 1.0, 4, zero), (TensorType((2, 5, 3, c), dtype), 1 << 15), *scales)
    for c, period in ((96, 1), (37, 1), (128, 64), (96, 12), (192, 48), (300, 100), (64, 64)):
        for op, dtype in (
            (QLif(29999), DType.I16), (QLif(12345, False, "subtract", True, True), DType.I8),
            (QLif(1 << 14, True, "subtract"), DType.I32), (QLif(12345, False, "none", membrane=True), DType.I16),
        ):  # fmt: skip
            vectors = [(b.ints(*ends, period), "int32") for ends in ((1, 30), (-99, 999), (1, 9000))]
            b.add(op, (frame_type(dtype, 1, 1, c), 128 if dtype is DType.I8 else 1000), *vectors)


def every_kernel() -> tuple[Graph, dict[str, int]]:
    """The graph, and how far the values of each input reach."""
    b = Builder()
    add_products(b)
    add_rows(b)
    add_neurons(b)
    add_elementwise(b)
    add_images(b)
    add_gates(b)
    add_attention(b)
    add_spikes(b)
    return b.graph(), b.reach


def random_frame(graph: Graph, reach: dict[str, int], rng: np.random.Generator, rate: float) -> Arrays:
    """One frame of values; spikes come at `rate`, and at rate 1 integers are at the ends of their range."""
    frame: Arrays = {}
    for v in graph.inputs:
        if v.type.dtype is DType.BIT:
            frame[v.name] = (rng.random(v.type.shape) < rate).astype(np.int64)
            continue
        low, high = max(-reach[v.name], v.type.dtype.range[0]), min(reach[v.name], v.type.dtype.range[1])
        inside, ends = rng.integers(low, high + 1, v.type.shape), np.where(rng.random(v.type.shape) < 0.5, low, high)
        frame[v.name] = ends if rate == 1.0 else inside
    return frame


def in_words(manifest: Manifest) -> Manifest:
    """The manifest with packed spikes described as the words they are stored in."""

    def words(spec: TensorSpec) -> TensorSpec:
        return dataclasses.replace(spec, dtype="uint32", shape=(spec.bytes // 4,)) if spec.dtype == "bit" else spec

    inputs, outputs = (tuple(words(t) for t in ts) for ts in (manifest.inputs, manifest.outputs))
    return dataclasses.replace(manifest, inputs=inputs, outputs=outputs)


Make = Callable[[], tuple[Graph, dict[str, int]]]


@functools.cache
def compiled(make: Make, isa: tuple[str, ...]) -> tuple[Path, Plan]:
    """The graph as a library with the kernels of these instruction sets, on whatever core it is built for."""
    folder = Path(tempfile.mkdtemp(prefix="edgec-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    graph, _ = make()
    return folder, write_folder(graph, dataclasses.replace(load_target("host"), isa=isa), folder)


class Bench:
    """The graph compiled for one machine, beside its reference."""

    def __init__(
        self,
        kind: str,
        target: str,
        isa: tuple[str, ...] = (),
        toolchain: str = "zig",
        cc: str | None = None,
        make: Make = every_kernel,
    ) -> None:
        self.make = make
        self.graph, self.reach = make()
        machine = load_target(target)
        folder, self.plan = compiled(make, isa or machine.isa)
        manifest = in_words(read_manifest(folder))
        self.device: Device = open_device(kind, folder, manifest, machine, toolchain=toolchain, cc=cc)

    def check(self, frames: list[Arrays]) -> None:
        """The same frames through both from the start; every output's bytes are equal."""
        self.compare(frames, referred(self.graph, frames))

    def check_seeded(self, rates: tuple[float, ...]) -> None:
        """The same for frames that are drawn alike on every machine, so that the reference runs on them once."""
        self.compare(*seeded(self.make, rates))

    def compare(self, frames: list[Arrays], expected: list[list[np.ndarray]]) -> None:
        """Every output of the device is what was expected, byte for byte."""
        self.device.reset()
        for number, (frame, outputs) in enumerate(zip(frames, expected, strict=True)):
            found = self.device.step([storage(frame[v.name], v.type) for v in self.graph.inputs])
            assert found is not None
            for name, y, wanted in zip(self.graph.outputs, found, outputs, strict=True):
                op = next(n.op for n in self.graph.nodes if name in n.outputs)
                assert y.tobytes() == wanted.tobytes(), f"frame {number}, {name} of {op}: {difference(y, wanted)}"


def referred(graph: Graph, frames: list[Arrays]) -> list[list[np.ndarray]]:
    """What the reference makes of frames from the start, as it lies in memory."""
    reference, types = StepRunner(graph), [graph.type_of(name) for name in graph.outputs]
    found = []
    for frame in frames:
        expected = reference.step({n: torch.from_numpy(a) for n, a in frame.items()})
        assert expected is not None
        found.append([storage(r.numpy(), t) for r, t in zip(expected, types, strict=True)])
    return found


@functools.cache
def seeded(make: Make, rates: tuple[float, ...]) -> tuple[list[Arrays], list[list[np.ndarray]]]:
    """A frame for each rate of spikes, drawn from one seed, and what the reference makes of them."""
    (graph, reach), rng = make(), np.random.default_rng(7)
    frames = [random_frame(graph, reach, rng, rate) for rate in rates]
    return frames, referred(graph, frames)


def difference(found: np.ndarray, wanted: np.ndarray) -> str:
    at = int(np.flatnonzero(found.reshape(-1) != wanted.reshape(-1))[0])
    return f"element {at}: {found.reshape(-1)[at]} found, {wanted.reshape(-1)[at]} expected"
