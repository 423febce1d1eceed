"""QConv1d over several positions as a convolution of an image of one row: the kernels of images serve both."""

from __future__ import annotations

from dataclasses import replace

from edgec.kernels.rule import Rule
from edgec.ops.base import Kernel, Op, Site
from edgec.ops.integer.conv import QConv1d, QConv2d


def of_line(rule: Rule) -> Rule:
    """A rule of QConv2d, whose kernels lay x and y out flat, for QConv1d."""

    def found(op: Op, site: Site) -> Kernel | None:
        assert isinstance(op, QConv1d)
        (x, w, bias), (y,) = site.inputs, site.outputs
        if not {1, 2} <= set(site.consts) or y.shape[1] == 1:
            return None
        image = QConv2d((1, op.stride), (0, 0, *op.pad), (1, op.dilation), op.groups, op.pad_value)
        lines = [replace(t, shape=(t.shape[0], 1, *t.shape[1:]), time_axis=None) for t in (x, y)]
        filters = replace(w, shape=(1, *w.shape), quant=None)
        consts = {**site.consts, 1: site.consts[1].reshape(filters.shape)}
        return rule(image, Site((lines[0], filters, bias), (lines[1],), (), consts))

    return found
