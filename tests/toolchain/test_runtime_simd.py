"""Every intrinsic gives the same bits as its portable twin, executed on the emulated core."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgec.device import Device, open_device
from tests.toolchain.vector_model import make_model

EXPRESSIONS = [
    "edgec_sxtb16(x)", "edgec_sxtb16_ror8(x)", "edgec_sxtab16(x, y)", "edgec_sxtab16_ror8(x, y)", "edgec_sadd16(x, y)",
    "edgec_ssub16(x, y)", "edgec_qadd16(x, y)", "edgec_smlad(x, y, z)", "edgec_smladx(x, y, z)", "edgec_smuad(x, y)",
    "edgec_smmul(x, y)", "edgec_smmulr(x, y)", "edgec_smmlar(x, y, z)", "edgec_clamp_s8(x)", "edgec_clamp_s16(x)",
    "edgec_clamp_u8(x)", "edgec_clamp_u16(x)", "edgec_clamp_s8x2(x)", "edgec_clz32(x)", "edgec_ctz32(x)",
    "edgec_pack(x, y)", "edgec_pack_hi(x, y)", "edgec_lo16(x)", "edgec_hi16(x)",
    "edgec_read_s8x4((const int8_t *)p_x + 3 * (i & 15) + 1)",
]  # fmt: skip
COUNT = 64
EDGES = [0, 1, -1, 127, 128, -128, -129, 255, 256, 32767, 32768, -32768, -32769, 65535, 65536, 2**31 - 1, -(2**31),
         0x7FFF7FFF, -0x7FFF8000, 0x00800080, 0x7F807F80]  # fmt: skip
WORDS = st.one_of(st.sampled_from(EDGES), st.integers(-(2**31), 2**31 - 1))
VECTORS = st.lists(WORDS, min_size=COUNT, max_size=COUNT).map(lambda v: np.array(v, np.int32))


def model(x: int, y: int, z: int) -> list[int]:
    """The instructions' meaning from the architecture manual, in Python integers."""

    def word(v: int) -> int:
        return (v + 2**31) % 2**32 - 2**31

    def half(v: int, n: int) -> int:
        return ((v >> 16 * n) + 2**15) % 2**16 - 2**15

    def byte(v: int, n: int) -> int:
        return ((v >> 8 * n) + 128) % 256 - 128

    def pair(lo: int, hi: int) -> int:
        return word((lo & 0xFFFF) | (hi & 0xFFFF) << 16)

    def sat(v: int, low: int, high: int) -> int:
        return min(max(v, low), high)

    x0, x1, y0, y1 = half(x, 0), half(x, 1), half(y, 0), half(y, 1)
    rounded = x * y + 2**31
    return [
        pair(byte(x, 0), byte(x, 2)), pair(byte(x, 1), byte(x, 3)), pair(x0 + byte(y, 0), x1 + byte(y, 2)),
        pair(x0 + byte(y, 1), x1 + byte(y, 3)), pair(x0 + y0, x1 + y1), pair(x0 - y0, x1 - y1),
        pair(sat(x0 + y0, -(2**15), 2**15 - 1), sat(x1 + y1, -(2**15), 2**15 - 1)),
        word(z + x0 * y0 + x1 * y1), word(z + x0 * y1 + x1 * y0), word(x0 * y0 + x1 * y1),
        word((x * y) >> 32), word(rounded >> 32), word(((z << 32) + rounded) >> 32),
        sat(x, -128, 127), sat(x, -(2**15), 2**15 - 1), sat(x, 0, 255), sat(x, 0, 65535),
        pair(sat(x0, -128, 127), sat(x1, -128, 127)), 32 - (x & 0xFFFFFFFF).bit_length(),
        32 if x == 0 else ((x & -x).bit_length() - 1), pair(x0, y0), pair(x1, y1), x0, x1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "target", "toolchain"),
    [("host", "host", "zig"), ("unicorn", "cortex-m7", "zig"), ("unicorn", "cortex-m4", "gcc"),
     ("unicorn", "cortex-m3", "zig"), ("unicorn", "cortex-m0plus", "zig")],
)  # fmt: skip
def test_twins_and_instructions_agree(tmp_path: Path, kind: str, target: str, toolchain: str) -> None:
    if kind == "unicorn":
        pytest.importorskip("unicorn")
    if toolchain == "gcc":
        skip_without("arm-none-eabi-gcc")
    folder = make_model(tmp_path, ["x", "y", "z"], EXPRESSIONS, "int32_t", "int32", COUNT)
    with open_device(kind, folder, target=target, toolchain=toolchain) as device:
        compare(device)


def skip_without(program: str) -> None:
    import shutil

    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def compare(device: Device) -> None:
    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(VECTORS, VECTORS, VECTORS)
    def check(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        outputs = device.step([x, y, z])
        assert outputs is not None
        rows = [model(int(a), int(b), int(c)) for a, b, c in zip(x, y, z, strict=True)]
        for k, expression in enumerate(EXPRESSIONS[:-1]):
            np.testing.assert_array_equal(outputs[k], np.array([r[k] for r in rows], np.int32), expression)
        raw = x.tobytes()
        unaligned = [int.from_bytes(raw[3 * (i & 15) + 1 :][:4], "little", signed=True) for i in range(COUNT)]
        np.testing.assert_array_equal(outputs[-1], np.array(unaligned, np.int32), "unaligned load")

    check()
