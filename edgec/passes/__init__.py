"""The passes that `edgec opt` can run by name; each file holds one pass."""

from __future__ import annotations

from edgec.passes.assign_layout import AssignLayout
from edgec.passes.base import Pass
from edgec.passes.canonicalize import Canonicalize
from edgec.passes.channels.drop_constant_channels import DropConstantChannels
from edgec.passes.fold_batchnorm import FoldBatchnorm
from edgec.passes.fold_transpose import FoldTranspose
from edgec.passes.fuse import Fuse
from edgec.passes.recognize_eca import RecognizeEca
from edgec.passes.recognize_scaler import RecognizeScaler
from edgec.passes.split_linear import SplitLinear
from edgec.passes.streaming.make_sliding import MakeSliding
from edgec.passes.streaming.make_streaming import MakeStreaming

PASSES: dict[str, type[Pass]] = {
    "canonicalize": Canonicalize,
    "drop_constant_channels": DropConstantChannels,
    "recognize_eca": RecognizeEca,
    "recognize_scaler": RecognizeScaler,
    "assign_layout": AssignLayout,
    "fold_batchnorm": FoldBatchnorm,
    "split_linear": SplitLinear,
    "fold_transpose": FoldTranspose,
    "fuse": Fuse,
    "make_streaming": MakeStreaming,
    "make_sliding": MakeSliding,
}
