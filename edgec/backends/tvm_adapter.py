"""The only `import tvm`: kernel text to lowered TIR with bare pointer parameters, and TIR to object code.

Importing this module takes seconds; the other backends import it inside the functions that generate code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir import PointerType, PrimType
from tvm.script import from_source

from edgec.backends.kernel import NamedKernel, check_symbols, source_text
from edgec.errors import CodegenError

_S, _X = s_tir.transform, tirx.transform
_FAULTS = (RuntimeError, ValueError, TypeError, AttributeError, NameError, SyntaxError, IndexError, KeyError)


@functools.lru_cache(maxsize=1024)
def _parse(source: str) -> Any:
    return from_source(source)


def to_prim_func(kernel: NamedKernel, parallel: bool = False) -> Any:
    """The kernel as a PrimFunc over bare pointers, not lowered yet. CodegenError quotes the text that is wrong."""
    source = source_text(kernel.kernel)
    try:
        func = _parse(source if parallel else source.replace("T.parallel(", "T.serial("))
    except _FAULTS as err:
        text = getattr(err, "text", None)
        raise kernel.problem(f"its text does not parse: {str(err).strip()}" + (f"\n  {text}" if text else "")) from err
    params, decls = [], []
    for p in func.params:
        pointer = tirx.Var(p.name, PointerType(PrimType(str(p.ty.dtype)), "global"))
        params.append(pointer)
        decls.append(tirx.DeclBuffer(p, data=pointer))
    bare = tirx.PrimFunc(params, tirx.SeqStmt([*decls, func.body]))
    attrs = {"global_symbol": kernel.symbol, "tirx.noalias": kernel.restrict, "s_tir": True}
    return functools.reduce(lambda f, item: f.with_attr(*item), attrs.items(), bare)


def _passes(vectorize: bool) -> list[Any]:
    """Lowering without MakePackedAPI: flat buffers, 32-bit indices, unrolled T.unroll loops, no blocks."""
    return [
        _S.CanonicalizeLoop(), _S.LowerInitBlock(), _S.PlanAndUpdateBufferAllocationLocation(),
        _S.ConvertBlocksToOpaque(), _S.CompactBufferAllocation(), _S.LowerMatchBuffer(), _S.StmtSimplify(),
        _S.LowerOpaqueBlock(), _X.FlattenBuffer(), _X.NarrowDataType(32), _X.VectorizeLoop(vectorize),
        _X.UnrollLoop(), _S.RenormalizeSplitPattern(), _X.StmtSimplify(), _X.RemoveNoOp(), _S.RewriteUnsafeSelect(),
        _X.LowerIntrin(),
    ]  # fmt: skip


def lower(kernels: Sequence[NamedKernel], *, parallel: bool = False, vectorize: bool = False) -> Any:
    """All kernels lowered in one IRModule. `parallel` keeps T.parallel loops apart, `vectorize` T.vectorized ones."""
    check_symbols(kernels)
    funcs = {k.symbol: to_prim_func(k, parallel) for k in kernels}
    try:
        return _run_passes(funcs, vectorize)
    except _FAULTS as err:
        for k in kernels:  # one by one, to name the culprit
            try:
                _run_passes({k.symbol: funcs[k.symbol]}, vectorize)
            except _FAULTS as inner:
                raise k.problem(f"TVM cannot lower it: {_last_lines(inner)}") from inner
        raise CodegenError(f"TVM cannot lower the kernels: {_last_lines(err)}") from err


def _run_passes(funcs: Mapping[str, Any], vectorize: bool) -> Any:
    """For every backend the target of lowering is "c": any other would fuse multiply and add and call libm."""
    module = _X.BindTarget(tvm.target.Target("c"))(tvm.IRModule(dict(funcs)))
    return tvm.transform.Sequential(_passes(vectorize))(module)


def functions(module: Any) -> dict[str, Any]:
    """Lowered functions by symbol."""
    return {str(func.attrs["global_symbol"]): func for func in module.functions.values()}


def build_object(module: Any, target: Mapping[str, Any], path: Path) -> None:
    """Compile lowered kernels with LLVM into one object file. CodegenError when LLVM refuses."""
    try:
        llvm = tvm.target.Target(dict(target))
        bare = tvm.IRModule({symbol: func.without_attr("target") for symbol, func in functions(module).items()})
        tvm.get_global_func("target.build.llvm")(_X.BindTarget(llvm)(bare), llvm).write_to_file(str(path), "o")
    except _FAULTS as err:
        raise CodegenError(f"LLVM cannot compile the kernels: {_last_lines(err)}") from err


def _last_lines(err: BaseException, count: int = 3) -> str:
    return " ".join(str(err).strip().splitlines()[-count:])
