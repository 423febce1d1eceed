"""The C99 files a compiled model needs: headers copied beside it, ports and the harness an image is built from."""

from __future__ import annotations

from pathlib import Path

#: headers that only some models include, by what is in the names of what needs them
OPTIONAL: dict[str, tuple[str, ...]] = {
    "edgec_lif.h": ("edgec_lif",),
    "edgec_zones.h": ("edgec_rows3_zones", "edgec_mve_zones"),
    "edgec_conv.h": ("edgec_conv_",),
    "edgec_rows.h": ("edgec_rows_",),
    "edgec_products_plain.h": ("edgec_rows3_",),
    "edgec_products.h": ("edgec_rows3_",),
    "edgec_products_zones.h": ("edgec_rows3_zones",),
    "edgec_depth.h": ("edgec_depth_",),
    "edgec_narrow.h": ("edgec_narrow_",),
    "edgec_packed.h": ("edgec_packed_",),
    "edgec_mve_rows.h": ("edgec_mve_",),
    "edgec_mve.h": ("edgec_mve_",),
    "edgec_mve_image.h": ("edgec_mve_image_", "edgec_mve_zones"),
    "edgec_mve_zones.h": ("edgec_mve_zones",),
    "edgec_mve_depth.h": ("edgec_mve_depth_",),
    "edgec_mve_each.h": ("edgec_mve_each_",),
    "edgec_mve_product.h": ("edgec_mve_product_",),
    "edgec_mve_fft.h": ("edgec_mve_fft_",),
    "edgec_mve_norm.h": ("edgec_mve_norm_",),
    "edgec_softmax.h": ("edgec_softmax_", "edgec_mve_softmax_"),
    "edgec_mve_softmax.h": ("edgec_mve_softmax_",),
    "edgec_neon_rows.h": ("edgec_neon_",),
    "edgec_neon_image.h": ("edgec_neon_rows_image_", "edgec_neon_least_image_", "edgec_neon_depth_"),
    "edgec_neon_depth.h": ("edgec_neon_depth_",),
    "edgec_neon_each.h": ("edgec_neon_each_",),
    "edgec_dwt.h": ("edgec_cycles_",),
}
#: all of them, in the order they are included
HEADERS = ("edgec.h", "edgec_simd.h", "edgec_math.h", "edgec_event.h", "edgec_dense.h", *OPTIONAL)
_HERE = Path(__file__).resolve().parent


def runtime_file(name: str) -> Path:
    """Path of one runtime file, such as "edgec_simd.h" or "port_cortex_m.c"."""
    found = list(_HERE.rglob(name))
    assert len(found) == 1, f"{len(found)} runtime files {name}"
    return found[0]


def headers_for(text: str) -> tuple[str, ...]:
    """The headers that generated C needs, in the order it includes them."""
    return tuple(h for h in HEADERS if any(part in text for part in OPTIONAL.get(h, ("",))))


def header_text(name: str) -> str:
    """Text of a header that is copied beside a generated model."""
    assert name in HEADERS, f"{name} is not one of {HEADERS}"
    return runtime_file(name).read_text(encoding="utf-8")
