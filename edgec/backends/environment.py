"""The template environment that code and pages are written with."""

from __future__ import annotations

import jinja2


def environment() -> jinja2.Environment:
    """Templates of edgec/backends/templates; a missing value is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("edgec.backends"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=lambda name: name is not None and ".html" in name,
    )
