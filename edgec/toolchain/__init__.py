"""C compilers as subprocesses: a compiled model becomes an image or a shared library."""

from edgec.toolchain.compilers import find_nvcc, find_zig, host_cc, version_of
from edgec.toolchain.image import build_aarch64, build_image, build_objects
from edgec.toolchain.manifest import Manifest, NodeSpec, SlotSpec, TensorSpec, parse_manifest, read_manifest
from edgec.toolchain.shared import build_cuda, build_plain_shared, build_shared, host_obstacle
from edgec.toolchain.sizes import Sizes, Symbol, image_sizes, symbols

__all__ = [
    "Manifest", "NodeSpec", "Sizes", "SlotSpec", "Symbol", "TensorSpec", "build_aarch64", "build_cuda", "build_image",
    "build_objects", "build_plain_shared", "build_shared", "find_nvcc", "find_zig", "host_cc", "host_obstacle",
    "image_sizes", "parse_manifest", "read_manifest", "symbols", "version_of",
]  # fmt: skip
