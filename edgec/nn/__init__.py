"""Torch modules that torch.export sees as one node each (operators of the edgec:: namespace)."""

from edgec.nn.lif import LIF, lif
from edgec.nn.lmu import LMUMemory, lmu_memory
from edgec.nn.log_mel import LogMel, log_mel
from edgec.nn.running_mean import RunningMean, running_mean

__all__ = [
    "LIF",
    "LMUMemory",
    "LogMel",
    "RunningMean",
    "lif",
    "lmu_memory",
    "log_mel",
    "running_mean",
]
