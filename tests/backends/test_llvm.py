"""Objects by TVM's LLVM for aarch64, linked with zig and run under qemu: the same bytes as the C backend."""

import shutil
import subprocess

import numpy as np
import pytest

from edgec.backends.llvm import emit_object, emit_object_files, wrappers
from edgec.errors import CodegenError
from edgec.target import load_target
from edgec.toolchain.compilers import find_zig
from tests.backends.kernel_tools import INCLUDES, RUNTIME, build_c, kernel

DOT = """for o in T.parallel(8):
    acc = T.alloc_buffer((1,), "int32")
    acc[0] = bias[o]
    for i in T.serial(32):
        acc[0] = acc[0] + T.cast(x[i], "int32") * T.cast(w[o, i], "int32")
    scaled: T.let[T.int32] = T.call_extern("int32", "edgec_smmulr", acc[0], 1 << 26)
    y[o] = T.cast(T.call_extern("int32", "edgec_clamp_s8", scaled), "int8")
for i in T.vectorized(32):
    z[i] = T.cast(x[i], "int16") * T.int16(3) - T.shift_right(T.cast(w[1, i], "int16"), T.int16(2))"""
PARAMS = (
    ("x", (32,), "int8"), ("w", (8, 32), "int8"), ("bias", (8,), "int32"), ("y", (8,), "int8"), ("z", (32,), "int16"),
)  # fmt: skip


def program(arrays, results):
    """A C program that calls f on the arrays and prints the results' bytes."""
    lines = []
    for name, _, kind in PARAMS:
        values = ", ".join(map(str, arrays[name].ravel().tolist()))
        lines.append(f"static {kind}_t {name}[] = {{{values}}};")
    writes = "".join(f"    fwrite({n}, 1, sizeof {n}, stdout);\n" for n in results)
    main = f"int main(void) {{\n    f(x, w, bias, y, z);\n{writes}    return 0;\n}}\n"
    return "#include <stdio.h>\n" + "\n".join([*lines, main])


@pytest.mark.skipif(shutil.which("qemu-aarch64") is None or find_zig() is None, reason="needs qemu-aarch64 and zig")
def test_aarch64_object_gives_the_bytes_of_the_c_backend(tmp_path):
    f = kernel(DOT, *PARAMS, writable="y z")
    rng = np.random.default_rng(0)
    arrays = {n: rng.integers(-100, 100, size=shape).astype(kind) for n, shape, kind in PARAMS}
    text, files = emit_object_files("net", [f], load_target("cortex-a53"))
    (tmp_path / "main.c").write_text(INCLUDES + text + program(arrays, "yz"), encoding="utf-8")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    flags = ["-target", "aarch64-linux-musl", "-static", "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    argv = [*find_zig(), *flags, *RUNTIME, "main.c", *files, "-o", "main"]
    subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(["qemu-aarch64", str(tmp_path / "main")], check=True, capture_output=True)
    expected = build_c([f], tmp_path)("f", arrays)
    assert done.stdout == expected["y"].tobytes() + expected["z"].tobytes()


def test_wrappers_have_the_types_of_the_calls():
    body = """y[0] = T.call_extern("int32", "edgec_read_s8x4", T.address_of(x[1]))
f[0] = T.call_extern('float32', 'edgec_sqrtf', f[1])
T.evaluate(T.call_extern("void", "edgec_write_s8x4", x.data, y[0]))"""
    f = kernel(body, ("x", (8,), "int8"), ("y", (1,), "int32"), ("f", (2,), "float32"), writable="x y f")
    assert wrappers([f], "net_") == (
        "int32_t net_edgec_read_s8x4(int8_t *a0);\n"
        "int32_t net_edgec_read_s8x4(int8_t *a0) {\n    return edgec_read_s8x4(a0);\n}\n\n"
        "float net_edgec_sqrtf(float a0);\nfloat net_edgec_sqrtf(float a0) {\n    return edgec_sqrtf(a0);\n}\n\n"
        "void net_edgec_write_s8x4(int8_t *a0, int32_t a1);\n"
        "void net_edgec_write_s8x4(int8_t *a0, int32_t a1) {\n    edgec_write_s8x4(a0, a1);\n}\n"
    )


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_an_object_needs_only_the_wrappers(tmp_path):
    body = 'for i in T.parallel(8):\n    y[i] = T.call_extern("float32", "edgec_expf", x[i]) / T.float32(3)'
    f = kernel(body, ("x", (8,), "float32"), ("y", (8,), "float32"), writable="y")
    path = tmp_path / "kernels.o"
    path.write_bytes(emit_object([f], "aarch64-linux-gnu", "cortex-a53", prefix="net_"))
    assert path.read_bytes() == emit_object([f], "aarch64-linux-gnu", "cortex-a53", prefix="net_")
    undefined = subprocess.run(["nm", "-u", path], check=True, capture_output=True, text=True).stdout.split()
    assert set(undefined) - {"U"} == {"net_edgec_expf"}


def test_a_target_without_llvm_is_an_error():
    f = kernel("y[0] = 1", ("y", (1,), "int32"), writable="y")
    with pytest.raises(CodegenError, match=r"target host has no \[llvm\] triple"):
        emit_object_files("net", [f], load_target("host"))
