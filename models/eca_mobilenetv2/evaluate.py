"""What `edgec card` measures of ECA-MobileNetV2: the CIFAR-10 test split."""

from ..cifar_evaluate import *  # noqa: F403
