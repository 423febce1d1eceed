"""Machine code of a Cortex-M as instructions with what their timing depends on. The only file that imports capstone."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edgec.errors import ToolchainError

#: mnemonic without condition and width -> kind; the first pattern that fits, everything else is one step of the ALU
KINDS: tuple[tuple[str, str], ...] = (
    (r"ldm\w*|pop|ldrd|vldm\w*|vpop", "load_many"),
    (r"stm\w*|push|strd|vstm\w*|vpush", "store_many"),
    (r"ldr\w*|vldr\S*", "load"),
    (r"str\w*|vstr\S*", "store"),
    (r"sdiv|udiv", "divide"),
    (r"mla|mls", "multiply_add"),
    (r"umull|smull|umlal|smlal|umaal", "multiply_long"),
    (r"mul|muls|sm[lmu]\w+|usad\w+", "multiply"),
    (r"le|letp", "loop"),
    (r"b|bl|cbn?z|wls\S*", "branch"),
    (r"bx|blx|tbb|tbh", "jump"),
    (r"vdiv\S*|vsqrt\S*", "float_divide"),
    (r"vn?ml[as]\S*|vfn?m[as]\S*", "float_multiply_add"),
    (r"v\w\S*", "float"),
    (r"lsls?|lsrs?|asrs?|rors?|rrxs?|[us]xt\w+|[us]?[xhq]?(add|sub)(8|16)|pkh\w+|[us]sat\w*|sel|rev\w*|[us]bfx|bfi|bfc",
     "shift"),
)  # fmt: skip
#: the same for the vector extension: by the pipe an instruction holds and how late its result comes
VECTOR_KINDS: tuple[tuple[str, str], ...] = (
    (r"vldm\w*|vpop", "load_many"),
    (r"vstm\w*|vpush", "store_many"),
    (r"vld\S*", "vector_load"),
    (r"vst\S*", "vector_store"),
    (r"vctp\S*|vpst\S*|vpnot", "vector_predicate"),
    (r"vmsr|vmrs", "float"),
    (r"v(cmp|pt)\S*|v(abd|abs|add|cadd|neg|sub|maxnm\w*|minnm\w*)t?\.f\S*", "vector_compare"),
    (r"v(addv|addva|addlv\w*|mul|mulh|rmulh|mull[bt]|q?r?d?mulh|qdmull[bt]|\w*ml[as]\w*|fm[as]s?|cvt\w*|cmul|cmla)t?\.\S*",
     "vector_multiply"),
    (r"v(q?movu?n|q?r?shru?n)[bt]t?\.\S*|v(max|min)a?vt?\.\S*|vabav\S*", "vector_narrow"),
    (r"vmov\.i\S*|vmvn\.i\S*", "vector_multiply"),
    (r"v(adci?|sbci?|qr?shlu?|rshl|rshr)t?\.\S*", "vector_shift"),
    (r"v\w\S*", "vector_add"),
)  # fmt: skip
_CONDITIONS = ["eq", "ne", "hs", "cs", "lo", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le"]
_ALIASES = {"r13": "sp", "r14": "lr", "r15": "pc"}
_FLAGS = frozenset({"cpsr"})  # a predicted branch does not wait for them
_LIGHT = r"movs?$|[us]xt[bh]$|it|nop$|b"


@dataclass(frozen=True)
class Instruction:
    """One instruction: `words` moves to or from memory, `address` holds the registers its address is made of, `indexed`
    is an address with a register offset, `target` that of a direct branch, `ends` that nothing goes on behind it,
    `light` a short move, extension, sum with a constant, or branch, which some cores start with a neighbour."""

    at: int
    size: int
    kind: str
    words: int = 1
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    address: frozenset[str] = frozenset()
    indexed: bool = False
    target: int | None = None
    ends: bool = False
    light: bool = False


@functools.cache
def _decoder(vectors: bool) -> Any:
    try:
        import capstone
    except ImportError as err:
        raise ToolchainError(
            "cycles cannot be modelled: the disassembler capstone is not installed", hint="pip install capstone"
        ) from err
    newest = capstone.CS_MODE_V8 if vectors else 0
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | newest)
    decoder.detail = True
    return decoder


def knows_vectors() -> bool:
    """Whether the installed disassembler is one of those that know the vector extension: from version 6 on."""
    import capstone

    return int(capstone.__version__.partition(".")[0]) >= 6


@functools.cache
def vector_kind_of(mnemonic: str) -> str:
    """The same of an instruction that works on vectors."""
    return next(kind for pattern, kind in VECTOR_KINDS if re.fullmatch(pattern, mnemonic))


@functools.cache
def kind_of(mnemonic: str) -> str:
    """The kind of a mnemonic as capstone prints it."""
    name = mnemonic.removesuffix(".w").removesuffix(".n")
    stems = [name, *(name.removesuffix(c) for c in _CONDITIONS if name.endswith(c))]
    for pattern, kind in KINDS:
        if any(re.fullmatch(pattern, stem) for stem in stems):
            return kind
    return "alu"


def decode(code: bytes, start: int, at: int, vectors: bool = False) -> Iterator[Instruction]:
    """Instructions from address `at` on, where code[0] lies at `start`, up to one behind which nothing goes on.

    `vectors`: of a core with the vector extension. ToolchainError for bytes that are no instruction, but behind a
    call: a Cortex-M0+ jumps far by one, and then data may follow.
    """
    end, called = at, False
    for found in _decoder(vectors).disasm(code[at - start :], at):
        instruction = _instruction(found)
        end, called = found.address + found.size, called or found.mnemonic == "bl"
        yield instruction
        if instruction.ends:
            return
    if called:
        return
    raise ToolchainError(f"no instruction at {end:#010x}: {code[end - start : end - start + 4].hex(' ')}")


def _instruction(found: Any) -> Instruction:
    from capstone import arm

    read, written = (frozenset(map(_name(found), registers)) - _FLAGS for registers in found.regs_access())
    operands, mnemonic = found.operands, found.mnemonic
    memory = [o.value.mem for o in operands if o.type == arm.ARM_OP_MEM]
    address = frozenset(_name(found)(r) for m in memory for r in (m.base, m.index) if r)
    registers = frozenset(_name(found)(o.value.reg) for o in operands if o.type == arm.ARM_OP_REG)
    if any(r.startswith("q") for r in registers) or re.match(r"vctp|vps?t|vpnot", mnemonic):
        kind = vector_kind_of(mnemonic)
        return Instruction(found.address, found.size, kind, 1, read, written, address, any(m.index for m in memory))
    kind, words = kind_of(mnemonic), 1
    if kind == "alu" and any(o.shift.type for o in operands):
        kind = "shift"
    if kind in ("load", "store") and re.match(r"v\S*", mnemonic) and found.op_str.startswith("d"):
        kind += "_many"
    if kind.endswith("_many"):
        listed = found.op_str[found.op_str.find("{") :].count(",") + 1 if "{" in found.op_str else 2
        words = listed * (2 if re.search(r"\{d", found.op_str) else 1)
        address = address or frozenset({"sp"} if mnemonic[:1] in "pv" and "[" not in found.op_str else [])
        address = address or frozenset(_name(found)(o.value.reg) for o in operands[:1])
    into_pc = "pc" in written and kind in ("load", "load_many", "alu")
    constant = bool(operands) and operands[-1].type == arm.ARM_OP_IMM
    target = operands[-1].value.imm if kind in ("branch", "loop") and constant else None
    always = found.cc in (arm.ARM_CC_AL, arm.ARM_CC_INVALID) and not mnemonic.startswith(("cb", "wls"))
    call = mnemonic.startswith(("bl", "blx")) and mnemonic[:3] not in ("blt", "blo", "bls", "ble")
    ends = always and not call and (kind in ("branch", "jump") or into_pc)
    light = bool(re.match(_LIGHT, mnemonic)) or (kind == "alu" and mnemonic[:3] in ("add", "sub") and constant)
    return Instruction(
        found.address, found.size, kind, words, read | (registers - written), written, address,
        any(m.index for m in memory), target, ends, light and found.size == 2 and "sp" not in registers,
    )  # fmt: skip


def _name(found: Any) -> Callable[[int], str]:
    """Names of registers, the same in all versions of the disassembler."""
    return lambda register: _ALIASES.get(found.reg_name(register), found.reg_name(register))
