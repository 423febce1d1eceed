"""The structures of the two MLPerf Tiny networks whose files are not here, with random int8 weights."""

from __future__ import annotations

import numpy as np

from tests.frontends.tflite.tflite_models import Net, Op, T, options

ZERO = -128  # of every activation behind a ReLU


class Layers:
    """Layer by layer into a Net; the output scale of a layer keeps its levels apart."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors, self.ops, self.x = [T(shape, 1 / 128, 0)], list[Op](), 0

    def add(self, kind: str, made: object, out: T, *constants: T) -> None:
        first = len(self.tensors)
        self.tensors += [*constants, out]
        inputs = [self.x, *range(first, first + len(constants))]
        self.x = first + len(constants)
        self.ops.append(Op(kind, inputs, [self.x], made))

    def weights(self, shape: tuple[int, ...], outputs: int, axis: int, dead: float = 0.0) -> tuple[T, T, float]:
        """Weights and bias; a share of `dead` outputs has no weights. The third is a scale for their sums."""
        x = self.tensors[self.x]
        w = self.rng.integers(-127, 128, shape)
        gone = self.rng.random(outputs) < dead
        np.moveaxis(w, axis, -1)[..., gone] = 0
        fan = w.size // outputs
        scales = [float(s) for s in self.rng.uniform(1.0, 3.0, outputs) / (73 * np.sqrt(fan))]
        bias = self.rng.normal(0, 0.1, outputs) / (x.scale * np.array(scales))  # type: ignore[operator]
        steps = [x.scale * s for s in scales]  # type: ignore[operator]
        return T(shape, scales, data=w, axis=axis), T((outputs,), steps, dtype="int32", data=np.round(bias)), 0.02

    def conv(self, outputs: int, size: int, stride: int, depthwise: bool = False, dead: float = 0.0) -> None:
        """SAME padding and RELU6."""
        batch, h, w, c = self.tensors[self.x].shape
        shape, axis = ((1, size, size, c), 3) if depthwise else ((outputs, size, size, c), 0)
        weights, bias, scale = self.weights(shape, c if depthwise else outputs, axis, dead)
        fields = {"padding": 0, "strideH": stride, "strideW": stride, "fusedActivationFunction": 3}
        fields |= {"dilationHFactor": 1, "dilationWFactor": 1} | ({"depthMultiplier": 1} if depthwise else {})
        kind, name = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
        out = T((batch, -(-h // stride), -(-w // stride), c if depthwise else outputs), scale, ZERO)
        self.add(kind, options(name, **fields), out, weights, bias)

    def dense(self, outputs: int, relu: bool) -> None:
        rows, inputs = self.tensors[self.x].shape
        weights, bias, scale = self.weights((outputs, inputs), outputs, 0)
        weights.scale, bias.scale = weights.scale[0], bias.scale[0]  # type: ignore[index]
        made = options("FullyConnectedOptions", fusedActivationFunction=int(relu))
        self.add("FULLY_CONNECTED", made, T((rows, outputs), scale, ZERO if relu else 3), weights, bias)

    def net(self) -> Net:
        return Net(self.tensors, self.ops)


def visual_wake_words(seed: int = 0) -> Net:
    """MobileNetV1 of width 1/4 on 96 x 96 x 3 images, two classes; a third of the outputs has no weights."""
    net = Layers((1, 96, 96, 3), seed)
    net.conv(8, 3, 2)
    blocks = ((1, 16), (2, 32), (1, 32), (2, 64), (1, 64), (2, 128), *[(1, 128)] * 5, (2, 256), (1, 256))
    for stride, outputs in blocks:
        net.conv(0, 3, stride, depthwise=True, dead=0.35)
        net.conv(outputs, 1, 1, dead=0.35)
    pool = options("Pool2DOptions", padding=1, strideH=3, strideW=3, filterHeight=3, filterWidth=3)
    net.add("AVERAGE_POOL_2D", pool, T((1, 1, 1, 256), 0.02, ZERO))
    net.add("RESHAPE", options("ReshapeOptions", newShape=[1, 256]), T((1, 256), 0.02, ZERO))
    net.dense(2, False)
    net.add("SOFTMAX", options("SoftmaxOptions", beta=1.0), T((1, 2), 1 / 256, -128))
    return net.net()


def anomaly_detection(seed: int = 0) -> Net:
    """The autoencoder of 640 features: nine layers around a bottleneck of 8."""
    net = Layers((1, 640), seed)
    for outputs in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        net.dense(outputs, True)
    net.dense(640, False)
    return net.net()
