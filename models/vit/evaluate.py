"""What `edgec card` measures of the vision transformer: the CIFAR-10 test split."""

from ..cifar_evaluate import (
    CALIBRATION_FILES,
    DATA,
    FILES,
    LICENCE,
    METRIC,
    PER,
    TASK,
    UNIT,
    calibration_set,
    metric,
    test_set,
)

__all__ = [
    "CALIBRATION_FILES",
    "DATA",
    "FILES",
    "LICENCE",
    "METRIC",
    "PER",
    "TASK",
    "UNIT",
    "calibration_set",
    "metric",
    "test_set",
]
