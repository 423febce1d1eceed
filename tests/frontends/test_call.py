"""The one Call: what binds to a schema, what does not, and what nobody reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.frontends.builder import GraphBuilder
from edgec.frontends.call import Call, Parameter, bind

X, BIAS, REST = Parameter("x", required=True), Parameter("bias"), Parameter("rest", variadic=True)
STRIDE, NAME = Parameter("stride", [1, 1]), Parameter("name", "same")


def test_places_names_and_defaults() -> None:
    schema = (X, BIAS, STRIDE)
    assert bind(schema, ["t"], {}) == {"x": "t", "bias": None, "stride": [1, 1]}
    assert bind(schema, ["t", None, [2, 2]], {}) == bind(schema, ["t"], {"stride": [2, 2]})
    assert bind((X, REST), ["a", "b", "c"], {})["rest"] == ("b", "c")


@pytest.mark.parametrize(
    ("schema", "places", "named", "message"),
    [
        ((X, BIAS), ["t", "u", "v"], {}, "3 inputs, expected 2 at most"),
        ((X, BIAS), [None, "u"], {}, "x is missing"),
        ((X, REST), ["t"], {}, "rest is missing"),
        ((X, REST), ["t", "u", None], {}, "rest is missing"),
        ((X, BIAS), ["t"], {"beta": 2}, "beta is unknown, expected x, bias"),
        ((), [], {"beta": 2}, "beta is unknown, expected nothing"),
    ],
)
def test_what_does_not_bind(schema: Any, places: list[Any], named: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bind(schema, places, named)


def call(**named: Any) -> Call:
    schema = (X, BIAS, STRIDE, NAME)
    return Call("op", schema, bind(schema, ["t"], named), GraphBuilder("net"), "y")


def test_what_no_converter_reads_is_refused() -> None:
    assert call().convert(lambda c: c["x"]) == "t"
    assert call(stride=(1, 1), name="same").convert(lambda c: c[c.first]) == "t"
    for given, text in (({"stride": [1, 2]}, r"stride \[1, 2\] is"), ({"bias": np.ones(3)}, "bias .* is")):
        with pytest.raises(ValueError, match=f"{text} not supported; supported: "):
            call(**given).convert(lambda c: c["x"])
        assert call(**given).convert(lambda c: c.ignore("stride", "bias", "x")) is None
        assert call(**given).convert(lambda c: [c.get(key) for key in (*c.args, "none")])[-1] is None


def test_an_attribute_of_which_few_values_are_supported() -> None:
    assert call(name="valid").only("name", "same", "valid") == "valid"
    with pytest.raises(ValueError, match="name valid is not supported; supported: same"):
        call(name="valid").only("name", "same")
