"""What a kernel rule is, and a table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgec.ops.base import Kernel, Op, Site

#: the kernel of a node, or None where the rule does not fit it
Rule = Callable[[Op, Site], Kernel | None]
#: the rules of an op by the name of the variant, tried in this order
Variants = tuple[tuple[str, Rule], ...]
Table = Mapping[type[Op], Variants]
