import re

from edgec.runtime import all_headers, header_text, headers_for


def test_a_header_stands_behind_those_it_includes() -> None:
    for k, name in enumerate(all_headers()):
        included = re.findall(r'^#include "(\w+\.h)"', header_text(name), re.M)
        assert set(included) <= set(list(all_headers())[:k]), name


def test_c_includes_what_its_names_need() -> None:
    always = ("edgec.h", "edgec_simd.h", "edgec_dense.h", "edgec_event.h", "edgec_math.h")
    assert headers_for("") == always
    assert set(headers_for("edgec_depth_image_1(x);")) == {*always, "edgec_depth.h"}
    assert {"edgec_mve.h", "edgec_mve_rows.h", "edgec_mve_fft.h"} <= set(headers_for("edgec_mve_fft_turn(x);"))
