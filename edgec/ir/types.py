"""Tensor types of the IR: shape, element type, quantisation, time axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod


class DType(StrEnum):
    """Element types. BIT is a spike: packed 32 to a word along the last axis, every row word-aligned.

    I4 and I2 lie one to a byte in memory; weights of them are packed in flash, in the order their kernel reads them.
    U8 and BOOL (0 or 1 in a byte) are data: quantised tensors are signed.
    """

    F32 = "float32"
    I2 = "int2"
    I4 = "int4"
    I8 = "int8"
    I16 = "int16"
    I32 = "int32"
    I64 = "int64"
    U8 = "uint8"
    BOOL = "bool"
    BIT = "bit"

    @property
    def is_float(self) -> bool:
        return self is DType.F32

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers of 8 bits or more as data: no truth values, no spikes."""
        return self in (DType.U8, DType.I8, DType.I16, DType.I32, DType.I64)

    @property
    def is_data(self) -> bool:
        """Whether a tensor of it that has no scale holds data: an index, a truth value."""
        return self.is_integer or self is DType.BOOL

    @property
    def is_narrow(self) -> bool:
        """Whether it is an integer of fewer than 8 bits that lies in a byte."""
        return self in (DType.I2, DType.I4)

    @property
    def storage(self) -> str:
        """Element type in memory."""
        if self is DType.BIT:
            return "uint32"
        if self is DType.BOOL:
            return "uint8"
        return "int8" if self.is_narrow else self.value

    @property
    def item_bytes(self) -> int:
        """Bytes of an element in memory, of BIT those of a word."""
        return 4 if self is DType.BIT else max(_BITS[self], 8) // 8

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value of an integer type."""
        if self in (DType.BIT, DType.BOOL):
            return 0, 1
        if self is DType.U8:
            return 0, 255
        bits = _BITS[self]
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


_BITS = {
    **{DType.F32: 32, DType.I2: 2, DType.I4: 4, DType.I8: 8, DType.I16: 16, DType.I32: 32, DType.I64: 64},
    **{DType.U8: 8, DType.BOOL: 8},
}


@dataclass(frozen=True)
class QuantParams:
    """real = scale * (integer - zero_point). One scale, or one per index along `axis` (zero point 0)."""

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None


@dataclass(frozen=True)
class TensorType:
    """Type of one tensor. `time_axis` names the axis that counts frames (or samples) of a sequence."""

    shape: tuple[int, ...]
    dtype: DType = DType.F32
    quant: QuantParams | None = None
    time_axis: int | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """Shape in storage units: for BIT the last axis counts 32-bit words."""
        if self.dtype is not DType.BIT:
            return self.shape
        return (*self.shape[:-1], -(-self.shape[-1] // 32))

    @property
    def bytes(self) -> int:
        """Bytes in device memory."""
        return prod(self.storage_shape) * self.dtype.item_bytes

    @property
    def frames(self) -> int | None:
        """Extent of the time axis."""
        return None if self.time_axis is None else self.shape[self.time_axis]

    def with_shape(self, *shape: int) -> TensorType:
        return replace(self, shape=shape)
