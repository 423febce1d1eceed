"""Calibration data as users have it (arrays, tensors, mappings, a DataLoader), made one array for each input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgec.errors import EdgecError, InputError
from edgec.files import as_array
from edgec.ir.graph import Value
from edgec.ir.text import print_type
from edgec.ir.types import TensorType

Array = npt.NDArray[Any]
#: an array or tensor for the only input, one for each input by name, or an iterable of batches of either
Data = Iterable[Any] | Mapping[str, Any] | Array | torch.Tensor

#: what is read at most of an iterable: calibration gains nothing from a whole training set, which may not fit in memory
MOST = 4096


def gather(inputs: Sequence[Value], data: Data) -> dict[str, Array]:
    """The samples of each input, one after another along axis 0, equally many of each.

    data: an array or tensor for the only input; a mapping from input name to such; a tuple with one for each input in
    order, whatever follows them being labels; or an iterable of any of these, as a DataLoader is, of which the first
    MOST samples are taken. See `fitted` for the shapes. InputError names the batch and the input that does not fit.
    """
    parts: dict[str, list[Array]] = {v.name: [] for v in inputs}
    total = 0
    for number, batch in enumerate(batches_of(data)):
        where = f"calibration batch {number}"
        given = assigned(inputs, batch, where)
        found = {v.name: fitted(v, held(given, v.name, where), f"{where}, input %{v.name}") for v in inputs}
        counts = {v.name: len(found[v.name]) // v.type.shape[0] for v in inputs}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"%{name} {n}" for name, n in counts.items())
            raise InputError(f"{where}: the inputs have different numbers of samples: {listed}")
        for name, array in found.items():
            parts[name].append(array)
        total += next(iter(counts.values()))
        if total >= MOST:
            break
    if not total:
        raise InputError("expected calibration data, found none", hint="64 typical samples are enough")
    return {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in parts.items()}


def first_samples(inputs: Sequence[Value], data: Mapping[str, Array], count: int) -> dict[str, Array]:
    """The first `count` samples of what `gather` returned."""
    return {v.name: data[v.name][: count * v.type.shape[0]] for v in inputs}


def batches_of(data: Data) -> Iterator[Any]:
    """The batches of calibration data; all of it is one where it is no iterable of them."""
    if isinstance(data, (np.ndarray, torch.Tensor, Mapping, tuple)) or hasattr(data, "__array__") or is_numbers(data):
        yield data
    elif isinstance(data, Iterable) or hasattr(data, "__getitem__"):
        yield from one_by_one(data)
    else:
        raise InputError(
            f"expected calibration data, found {type(data).__name__}",
            hint="an array or tensor [N, ...], a mapping from input name to such, or an iterable of batches",
        )


def one_by_one(data: Any) -> Iterator[Any]:
    """What an iterable gives; what the user's own code raises on the way is told as that."""
    number = 0
    try:
        for number, batch in enumerate(data):
            yield batch
            number += 1
    except EdgecError:
        raise
    except Exception as err:
        raise raised(err, f"calibration batch {number}") from err


def raised(err: Exception, where: str) -> InputError:
    """What the user's own code raised; a worker of a DataLoader sends a traceback as text, which ends in the error."""
    text = str(err).strip()
    last = text.splitlines()[-1] if "Traceback" in text else f"{type(err).__name__}: {text}"
    return InputError(
        f"{where}: the data that was given raised {last[:400]}",
        hint="it comes from the data's own code, whose traceback is this error's cause",
    )


def is_numbers(data: Any) -> bool:
    """Whether it is a list of numbers, or of lists of them."""
    while isinstance(data, list) and data:
        data = data[0]
    return isinstance(data, (int, float))


def assigned(inputs: Sequence[Value], batch: Any, where: str) -> Mapping[str, Any]:
    """A batch by input name."""
    names = [v.name for v in inputs]
    if isinstance(batch, Mapping):
        missing = [f"%{name}" for name in names if name not in batch]
        if missing:
            raise InputError(f"{where}: expected data for input {', '.join(missing)}, found {sorted(map(str, batch))}")
        return batch
    if isinstance(batch, (tuple, list)) and not is_numbers(batch):
        if len(batch) < len(names):
            raise InputError(f"{where}: expected an array for each of the inputs {names}, found {len(batch)}")
        return dict(zip(names, batch, strict=False))  # what follows the inputs are labels
    if len(names) != 1:
        raise InputError(
            f"{where}: expected calibration data by input name {names}, found {type(batch).__name__}",
            hint=f"give a mapping such as {{{', '.join(f'{n!r}: ...' for n in names)}}}, or an .npz with these arrays",
        )
    return {names[0]: batch}


def held(batch: Mapping[str, Any], name: str, where: str) -> Any:
    """What a mapping holds, which may be read from a file only now."""
    try:
        return batch[name]
    except Exception as err:
        raise raised(err, f"{where}, input %{name}") from err


def fitted(v: Value, given: Any, where: str) -> Array:
    """Samples of one input, one after another along axis 0, every other axis as the input has it.

    given: [N, ...] as the input's type has it from its second axis on; or one sample or samples along a first axis, in
    which axes of length 1 do not count; where the input's own first axis is time, also [time, N, ...]. float32 (also
    what other float types hold), int16 PCM, and what an integer input takes. InputError says which shapes would do.
    """
    array = as_array(given, where)
    expected = f"{where}: expected {print_type(v.type)} samples along axis 0"
    if not v.type.shape:
        raise InputError(f"{expected}, but the input is a scalar, which has no axis 0")
    if array.size == 0:
        raise InputError(f"{expected}, found 0 rows")
    if v.type.dtype.is_float and array.dtype not in (np.float32, np.float64, np.int16):
        raise InputError(f"{expected} as float32 or int16 PCM, found {array.dtype}")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{expected}, found {array.dtype}")
    shaped = as_samples(array, v.type, expected)
    if shaped.dtype.kind == "f" and not np.isfinite(shaped).all():
        bad = int(np.flatnonzero(~np.isfinite(shaped.reshape(len(shaped), -1)).all(1))[0]) // v.type.shape[0]
        raise InputError(f"{expected}, found NaN or infinity in sample {bad}")
    return shaped


def as_samples(array: Array, t: TensorType, expected: str) -> Array:
    """An array in the form of `gather`; InputError where no reading of its shape fits, or more than one."""
    rows, rest = t.shape[0], t.shape[1:]
    if array.ndim == len(t.shape) and array.shape[1:] == rest and array.shape[0] % rows == 0:
        return array
    long = tuple(n for n in t.shape if n != 1)
    short = array.reshape(tuple(n for n in array.shape if n != 1))
    along_first = short.shape in (long, (*short.shape[:1], *long))
    time_first = rows > 1 and t.time_axis == 0 and short.ndim == len(long) + 1
    time_first = time_first and (short.shape[0], *short.shape[2:]) == long
    if along_first and not time_first:
        return short.reshape(-1, *rest)
    if time_first and not along_first:
        return np.ascontiguousarray(np.moveaxis(short, 1, 0)).reshape(-1, *rest)
    hint = f"these shapes would do: {', '.join(shapes_that_fit(t))}; axes of length 1 do not count"
    if along_first:
        raise InputError(f"{expected}, found shape {array.shape}, which may be samples first or time first", hint=hint)
    raise InputError(f"{expected}, found shape {array.shape}", hint=hint)


def shapes_that_fit(t: TensorType) -> list[str]:
    """The shapes of one sample and of N, for an error message."""
    one = list(t.shape)
    several = ", ".join(["N", *map(str, one[1:] if one[0] == 1 else one)])
    shapes = [f"[{several}]", f"{one} for one sample"]
    if one[0] > 1 and t.time_axis == 0:
        shapes.append(f"[{', '.join([str(one[0]), 'N', *(str(n) for n in one[1:] if n != 1)])}] with time first")
    return shapes
