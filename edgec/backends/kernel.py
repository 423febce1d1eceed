"""A kernel as backends take it: the op's TVMScript text under the name its function will have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgec.errors import CodegenError
from edgec.ops.base import Kernel


@dataclass(frozen=True)
class NamedKernel:
    """One function to generate.

    `writable` names the parameters the kernel may store to (states, outputs, scratch); all others become pointers to
    const. `comment` stands above the function; `where` names the node in errors. `restrict` promises that no two
    parameters overlap.
    """

    symbol: str
    kernel: Kernel
    writable: frozenset[str]
    comment: str = ""
    where: str = ""
    restrict: bool = True

    def problem(self, text: str) -> CodegenError:
        """An error about this kernel."""
        where = f" ({self.where})" if self.where else ""
        return CodegenError(f"kernel {self.symbol}{where}: {text}")


def source_text(kernel: Kernel) -> str:
    """The kernel as a TVMScript function. Equal texts are equal functions, whatever their symbols."""
    params = ", ".join(f"{name}: T.Buffer({_shape(shape)}, {kind!r})" for name, shape, kind in kernel.params)
    body = "\n".join(f"    {line}" for line in kernel.body.splitlines())
    return f"@T.prim_func(s_tir=True)\ndef kernel({params}):\n{body}\n"


def check_symbols(kernels: Sequence[NamedKernel]) -> None:
    """CodegenError for a symbol used twice or a writable name that is no parameter."""
    seen: set[str] = set()
    for k in kernels:
        if k.symbol in seen:
            raise k.problem("its symbol is used twice")
        seen.add(k.symbol)
        unknown = k.writable.difference(name for name, _, _ in k.kernel.params)
        if unknown:
            names = ", ".join(name for name, _, _ in k.kernel.params)
            raise k.problem(f"expected writable names among its parameters {names}; found {', '.join(sorted(unknown))}")


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + "".join(f"{n}, " for n in shape) + ")"
