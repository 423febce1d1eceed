"""What `edgec card` measures of the vision transformer: the CIFAR-10 test split."""

from ..cifar_evaluate import *  # noqa: F403
