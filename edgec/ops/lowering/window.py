"""Windows that slide over positions: their extents, their padding, and what of it an average counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgec.ir.types import TensorType
from edgec.ops.base import need

Sides = tuple[int, int, int, int]  # top, bottom, left, right


def in_extent(
    out: tuple[int, int], size: int, kernel: int, stride: int, before: int, dilation: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """What outputs [first, last) read of an axis of `size` inputs: inputs [first, last), and padding around them."""
    first, last = out[0] * stride - before, (out[1] - 1) * stride - before + dilation * (kernel - 1) + 1
    inside = max(first, 0), min(last, size)
    return inside, (inside[0] - first, last - inside[1])


def out_extent(extent: int, k: int, stride: int, pad: tuple[int, int], dilation: int) -> int:
    """Output positions along one axis."""
    span = dilation * (k - 1) + 1
    need(extent + sum(pad) >= span, f"{extent} positions padded by {pad} are fewer than the filter's span {span}")
    return (extent + sum(pad) - span) // stride + 1


def conv_axes(positions: str, groups: int, w: TensorType) -> str:
    """The axes of a convolution along these letters: a group's outputs read a range of the channels, one each where it
    is depthwise."""
    x, weights = ("i", "...io") if groups == 1 else ("(o)", "...o")
    if groups > 1 and w.shape[-2:] == (1, groups):
        x = "o"
    return f"b{''.join(f'({p})' for p in positions)}{x},{weights},...o->b{positions}o"


def ceil_pads(extent: int, kernel: int, stride: int, pads: tuple[int, int]) -> tuple[int, int]:
    """The padding along an axis with what ceil_mode adds: a last window cut short, if it starts before the padding."""
    before, after = pads
    more = -(extent + before + after - kernel) % stride
    starts = extent + before + after + more - kernel
    return before, after + (more if starts < extent + before else 0)


def check_counted(counted: Sides | None, pad: Sides, y: TensorType) -> None:
    """ValueError where the counted part of the padding is more than the padding, or the windows lie along time."""
    if counted is not None:
        need(all(0 <= c <= p for c, p in zip(counted, pad, strict=True)), f"{counted} of a padding of {pad} counts")
        need(y.time_axis != 1, "average pooling along time whose edge windows have another divisor")


def counts_of(
    extents: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], pad: Sides, counted: Sides
) -> npt.NDArray[np.int64]:
    """How many elements of each window count, [OH, OW]: those in the image [H, W] or in `counted` around it."""
    spans = []
    for k, extent in enumerate(extents):
        before, after = counted[2 * k : 2 * k + 2]
        last = extent + pad[2 * k] + pad[2 * k + 1] - kernel[k]
        first = np.arange(0, last + 1, stride[k]) - pad[2 * k]
        spans.append(np.minimum(first + kernel[k], extent + after) - np.maximum(first, -before))
    return np.asarray(spans[0][:, None] * spans[1], np.int64)


def count_text(
    extents: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], pad: Sides, counted: Sides
) -> str:
    """`counts_of` at output (i, j) as a TVMScript expression."""
    spans = []
    for axis, extent, k in zip("ij", extents, (0, 1), strict=True):
        first = f"({axis} * {stride[k]} - {pad[2 * k]})"
        last = f"T.min({first} + {kernel[k]}, {extent + counted[2 * k + 1]})"
        spans.append(f"({last} - T.max({first}, {-counted[2 * k]}))")
    return " * ".join(spans)
