"""The passes that `edgec opt` can run by name; each file holds one pass."""

from __future__ import annotations

from edgec.passes.assign_layout import AssignLayout
from edgec.passes.base import Pass
from edgec.passes.fold_batchnorm import FoldBatchnorm
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.fuse import Fuse
from edgec.passes.make_streaming import MakeStreaming

PASSES: dict[str, type[Pass]] = {
    "fold_constants": FoldConstants,
    "assign_layout": AssignLayout,
    "fold_batchnorm": FoldBatchnorm,
    "fuse": Fuse,
    "make_streaming": MakeStreaming,
}
