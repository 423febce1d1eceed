"""Float kernels for CUDA with a thread per result: the ops' own kernels leave most of the work to one thread.

Sums run in the order of the ops' own kernels, so that the bytes are those of the C backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from edgec.ir.types import DType
from edgec.kernels.rule import Table
from edgec.ops.activation import Softmax
from edgec.ops.arithmetic import Add, Binary, Div, Mul, Sub
from edgec.ops.base import Kernel, Op, Site, ctype, params_of
from edgec.ops.conv import Conv2d
from edgec.ops.dense import Linear, MatMul
from edgec.ops.elementwise import activation_lines
from edgec.ops.lowering.loops import strides_for
from edgec.ops.norm import LayerNorm
from edgec.ops.shape import Concat, Permute, Slice

ROWS = 4  # results of one column that a thread of a product computes: each weight it reads serves all of them


def threads(extents: Sequence[int], body: Sequence[str]) -> list[str]:
    """`body` with a thread for each index i0, i1, ... of a shape."""
    heads = ["    " * k + f"for i{k} in T.parallel({n}):" for k, n in enumerate(extents)]
    return [*heads, *("    " * len(extents) + line for line in body)]


def product(
    batch: int, rows: int, columns: int, inner: int, x: Callable[[int], str], w: str, first: str, activation: str = ""
) -> list[str]:
    """y[g, r, o] = first + sum over k of x(row) w, with g = i0, o = i2; a thread computes ROWS rows from r on.

    The last threads of a column repeat rows of those before them where ROWS does not divide the rows.
    """
    count = min(ROWS, rows)
    acc = [f"acc{j}" for j in range(count)]
    body = [f"r: T.let[T.int32] = T.min(i1 * {count}, {rows - count})"]
    for a in acc:
        body += [f'{a} = T.alloc_buffer((1,), "float32")', f"{a}[0] = {first}"]
    body += [f"for k in T.serial({inner}):"]
    body += [f"    {a}[0] = {a}[0] + {x(j)} * {w}" for j, a in enumerate(acc)]
    for j, a in enumerate(acc):
        body += activation_lines(activation, f"{a}[0]")
        body.append(f"y[(i0 * {rows} + r + {j}) * {columns} + i2] = {a}[0]")
    return threads((batch, -(-rows // count), columns), body)


def linear(op: Op, site: Site) -> Kernel | None:
    """A linear layer."""
    assert isinstance(op, Linear)
    x, w, _ = site.inputs
    inputs, outputs = w.shape
    rows = x.size // inputs
    lines = product(
        1, rows, outputs, inputs, lambda j: f"x[(r + {j}) * {inputs} + k]", "w[k, i2]", "bias[i2]", op.activation
    )
    params = (
        ("x", (x.size,), "float32"), ("w", w.shape, "float32"), ("bias", (outputs,), "float32"),
        ("y", (rows * outputs,), "float32"),
    )  # fmt: skip
    return Kernel("\n".join(lines), params)


def matmul(op: Op, site: Site) -> Kernel | None:
    """A product of two activations."""
    assert isinstance(op, MatMul)
    a, b = site.inputs
    m, k, n = a.shape[-2], a.shape[-1], site.outputs[0].shape[-1]
    batch = prod(a.shape[:-2])
    w = f"b[(i0 * {n} + i2) * {k} + k]" if op.transpose_b else f"b[(i0 * {k} + k) * {n} + i2]"
    lines = product(batch, m, n, k, lambda j: f"a[(i0 * {m} + r + {j}) * {k} + k]", w, "T.float32(0)")
    params = (("a", (a.size,), "float32"), ("b", (b.size,), "float32"), ("y", (batch * m * n,), "float32"))
    return Kernel("\n".join(lines), params)


def conv2d(op: Op, site: Site) -> Kernel | None:
    """A convolution, a thread for every element of the output."""
    assert isinstance(op, Conv2d)
    x, w, _ = site.inputs
    (y,), (_, height, width, _), (kh, kw, group, outputs) = site.outputs, x.shape, w.shape
    row = f"i1 * {op.stride[0]} + p * {op.dilation[0]} - {op.pad[0]}"
    column = f"i2 * {op.stride[1]} + q * {op.dilation[1]} - {op.pad[2]}"
    load = f"x[i0, {row}, {column}, i3 // {outputs // op.groups} * {group} + c]"
    if any(op.pad):
        inside = f"({row}) >= 0 and ({row}) < {height} and ({column}) >= 0 and ({column}) < {width}"
        load = f"T.if_then_else({inside}, {load}, T.float32(0))"
    body = [
        'acc = T.alloc_buffer((1,), "float32")',
        "acc[0] = bias[i3]",
        f"for p, q, c in T.grid({kh}, {kw}, {group}):",
        f"    acc[0] = acc[0] + {load} * w[p, q, c, i3]",
        *activation_lines(op.activation, "acc[0]"),
        "y[i0, i1, i2, i3] = acc[0]",
    ]
    return Kernel("\n".join(threads(y.shape, body)), params_of(site, ["x", "w", "bias", "y"]))


def softmax(op: Op, site: Site) -> Kernel | None:
    """Softmax over the last axis, a thread for every row."""
    assert isinstance(op, Softmax)
    x = site.inputs[0]
    n = x.shape[-1]
    body = [
        'top = T.alloc_buffer((1,), "float32")',
        'total = T.alloc_buffer((1,), "float32")',
        "top[0] = x[i0, 0]",
        f"for i in T.serial({n}):",
        "    top[0] = T.max(top[0], x[i0, i])",
        "total[0] = T.float32(0)",
        f"for i in T.serial({n}):",
        '    y[i0, i] = T.call_extern("float32", "edgec_expf", x[i0, i] - top[0])',
        "    total[0] = total[0] + y[i0, i]",
        f"for i in T.serial({n}):",
        "    y[i0, i] = y[i0, i] / total[0]",
    ]
    shape = (x.size // n, n)
    return Kernel("\n".join(threads(shape[:1], body)), (("x", shape, "float32"), ("y", shape, "float32")))


def layer_norm(op: Op, site: Site) -> Kernel | None:
    """Layer norm over the last axis, a thread for every row."""
    assert isinstance(op, LayerNorm)
    x = site.inputs[0]
    n = x.shape[-1]
    spread = f"total[0] / T.float32({n}) + T.float32({op.eps!r})"
    body = [
        'mean = T.alloc_buffer((1,), "float32")',
        'total = T.alloc_buffer((1,), "float32")',
        "mean[0] = T.float32(0)",
        f"for i in T.serial({n}):",
        "    mean[0] = mean[0] + x[i0, i]",
        f"mean[0] = mean[0] / T.float32({n})",
        "total[0] = T.float32(0)",
        f"for i in T.serial({n}):",
        "    total[0] = total[0] + (x[i0, i] - mean[0]) * (x[i0, i] - mean[0])",
        f'total[0] = T.float32(1) / T.call_extern("float32", "edgec_sqrtf", {spread})',
        f"for i in T.serial({n}):",
        "    y[i0, i] = (x[i0, i] - mean[0]) * total[0] * scale[i] + shift[i]",
    ]
    shape, row = (x.size // n, n), (n,)
    params = (("x", shape, "float32"), ("scale", row, "float32"), ("shift", row, "float32"), ("y", shape, "float32"))
    return Kernel("\n".join(threads(shape[:1], body)), params)


def binary(op: Op, site: Site) -> Kernel | None:
    """Broadcasting arithmetic, a thread for every element."""
    assert isinstance(op, Binary)
    (y,) = site.outputs
    if not y.dtype.is_float:
        return None
    at = [
        " + ".join(f"i{k} * {s}" for k, s in enumerate(strides_for(t.shape, y.shape)) if s) or "0"
        for t in (*site.inputs, y)
    ]
    lines = threads(y.shape, [f"y[{at[2]}] = a[{at[0]}] {op.symbol} b[{at[1]}]"])
    sizes = [(t.size,) for t in (*site.inputs, y)]
    return Kernel("\n".join(lines), tuple((n, s, "float32") for n, s in zip("aby", sizes, strict=True)))


def permute(op: Op, site: Site) -> Kernel | None:
    """The axes in another order, a thread for every element."""
    assert isinstance(op, Permute)
    y = site.outputs[0].storage_shape
    source = ", ".join(f"i{op.perm.index(axis)}" for axis in range(len(y)))
    at = ", ".join(f"i{k}" for k in range(len(y)))
    return Kernel("\n".join(threads(y, [f"y[{at}] = x[{source}]"])), params_of(site, ["x", "y"]))


def concat(op: Op, site: Site) -> Kernel | None:
    """Operands one after another, a launch for each and a thread for every element."""
    assert isinstance(op, Concat)
    (y,), kind = site.outputs, ctype(site.outputs[0].dtype)
    axis = op.axis % len(y.shape)
    outer = prod(y.storage_shape[:axis])
    inner = [prod(t.storage_shape[axis:]) for t in site.inputs]
    lines: list[str] = []
    for k, n in enumerate(inner):
        lines += threads((outer, n), [f"y[i0, i1 + {sum(inner[:k])}] = x{k}[i0, i1]"])
    params = tuple((f"x{k}", (outer, n), kind) for k, n in enumerate(inner))
    return Kernel("\n".join(lines), (*params, ("y", (outer, sum(inner)), kind)))


def cut(op: Op, site: Site) -> Kernel | None:
    """Part of an axis, a thread for every element."""
    assert isinstance(op, Slice)
    (x,), (y,) = site.inputs, site.outputs
    axis = op.axis % len(x.shape)
    if x.dtype is DType.BIT or op.step != 1:
        return None
    outer, inner, kind = prod(x.shape[:axis]), prod(x.shape[axis + 1 :]), ctype(x.dtype)
    whole, part = x.shape[axis] * inner, y.shape[axis] * inner
    lines = threads((outer, part), [f"y[i0, i1] = x[i0, i1 + {op.start * inner}]"])
    return Kernel("\n".join(lines), (("x", (outer, whole), kind), ("y", (outer, part), kind)))


CUDA: Table = {
    **dict.fromkeys((Add, Div, Mul, Sub), (("binary_cuda", binary),)),
    Concat: (("concat_cuda", concat),),
    Conv2d: (("conv_cuda", conv2d),),
    LayerNorm: (("layer_norm_cuda", layer_norm),),
    Linear: (("linear_cuda", linear),),
    MatMul: (("matmul_cuda", matmul),),
    Permute: (("permute_cuda", permute),),
    Slice: (("slice_cuda", cut),),
    Softmax: (("softmax_cuda", softmax),),
}
