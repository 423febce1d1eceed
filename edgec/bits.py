"""How many bits a layer's weights and what it reads may have, and how a user says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgec.errors import InputError
from edgec.files import read_table


@dataclass(frozen=True)
class Bits:
    """Of a layer's weights and of the activations it reads. `asked` by name: what cannot be had is then an error."""

    weights: int = 8
    activations: int = 8
    asked: bool = False


#: what a layer can be given by name; int4 weights times int8 are for flash, the other two below 8 bits for time too
PRECISIONS: Mapping[str, Bits] = {
    "w8a8": Bits(8, 8, True),
    "w4a8": Bits(4, 8, True),
    "w4a4": Bits(4, 4, True),
    "w2a8": Bits(2, 8, True),
    "w2a4": Bits(2, 4, True),
}
WEIGHTS = (8, 4, 2)


def check_bits(weights: int, layers: Mapping[str, str]) -> None:
    """InputError for a number of bits, or a precision of a layer, that there is not."""
    if weights not in WEIGHTS:
        raise InputError(f"weights of {weights} bits", hint=f"one of {', '.join(map(str, WEIGHTS))}")
    for name, precision in layers.items():
        if precision not in PRECISIONS:
            raise InputError(f"layer {name}: unknown precision {precision!r}", hint=f"one of {', '.join(PRECISIONS)}")


def read_bits(given: Sequence[str]) -> dict[str, str]:
    """LAYER=PRECISION, or the path of a .toml or .json file that maps one to the other; later ones win."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, precision = text.partition("=")
        found |= {name: precision} if equals else read_file(Path(text))
    return found


def read_file(path: Path) -> dict[str, str]:
    """A table of layers and their precisions."""
    hint = 'expected LAYER=PRECISION, or a .toml or .json file such as `conv1 = "w4a4"`'
    data = read_table(path, "precisions", hint)
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise InputError(f"{path}: expected one precision for each layer", hint=hint)
    return data
