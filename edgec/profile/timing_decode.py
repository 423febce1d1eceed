"""Machine code of a Cortex-M as instructions with what their timing depends on. The only file that imports capstone."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
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
    (r"b|bl|cbn?z", "branch"),
    (r"bx|blx|tbb|tbh", "jump"),
    (r"vdiv\S*|vsqrt\S*", "float_divide"),
    (r"vn?ml[as]\S*|vfn?m[as]\S*", "float_multiply_add"),
    (r"v\w\S*", "float"),
    (r"lsls?|lsrs?|asrs?|rors?|rrxs?|[us]xt\w+|[us]?[xhq]?(add|sub)(8|16)|pkh\w+|[us]sat\w*|sel|rev\w*|[us]bfx|bfi|bfc",
     "shift"),
)  # fmt: skip
_CONDITIONS = ["eq", "ne", "hs", "cs", "lo", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le"]
_UNCONDITIONAL = 15  # condition AL as capstone numbers it


@dataclass(frozen=True)
class Instruction:
    """One instruction: `words` moves to or from memory, `address` holds the registers its address is made of, `indexed`
    is an address with a register offset, `target` that of a direct branch, `ends` that nothing goes on behind it."""

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


@functools.cache
def _decoder() -> Any:
    try:
        import capstone
    except ImportError as err:
        raise ToolchainError(
            "cycles cannot be modelled: the disassembler capstone is not installed", hint="pip install capstone"
        ) from err
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    decoder.detail = True
    return decoder


@functools.cache
def kind_of(mnemonic: str) -> str:
    """The kind of a mnemonic as capstone prints it."""
    name = mnemonic.removesuffix(".w").removesuffix(".n")
    stems = [name, *(name.removesuffix(c) for c in _CONDITIONS if name.endswith(c))]
    for pattern, kind in KINDS:
        if any(re.fullmatch(pattern, stem) for stem in stems):
            return kind
    return "alu"


def decode(code: bytes, start: int, at: int) -> Iterator[Instruction]:
    """Instructions from address `at` on, where code[0] lies at `start`, up to one behind which nothing goes on.

    ToolchainError for bytes that are no instruction.
    """
    end = at
    for found in _decoder().disasm(code[at - start :], at):
        instruction = _instruction(found)
        end = found.address + found.size
        yield instruction
        if instruction.ends:
            return
    raise ToolchainError(f"no instruction at {end:#010x}: {code[end - start : end - start + 4].hex(' ')}")


def _instruction(found: Any) -> Instruction:
    read, written = found.regs_access()
    name, operands, kind = found.reg_name, found.operands, kind_of(found.mnemonic)
    if kind == "alu" and any(o.shift.type for o in operands):
        kind = "shift"
    if kind in ("load", "store") and re.match(r"v\S*", found.mnemonic) and found.op_str.startswith("d"):
        kind += "_many"
    registers = frozenset(name(r) for o in operands if o.type == 1 for r in [o.value.reg])
    writes = frozenset(map(name, written))
    memory = [o.value.mem for o in operands if o.type == 3]
    address = frozenset(name(r) for m in memory for r in (m.base, m.index) if r)
    words = 1
    if kind.endswith("_many"):
        listed = found.op_str[found.op_str.find("{") :].count(",") + 1 if "{" in found.op_str else 2
        words = listed * (2 if re.search(r"\{d", found.op_str) else 1)
        address = address or frozenset({"sp"} if found.mnemonic[:1] in "pv" and "[" not in found.op_str else [])
        address = address or frozenset(name(r) for r in read[:1])
    into_pc = "pc" in writes and kind in ("load", "load_many", "alu")
    target = operands[-1].value.imm if kind == "branch" and operands and operands[-1].type == 2 else None
    always = found.cc in (0, _UNCONDITIONAL) and not found.mnemonic.startswith("cb")
    call = found.mnemonic.startswith(("bl", "blx")) and found.mnemonic[:3] not in ("blt", "blo", "bls", "ble")
    ends = always and not call and (kind in ("branch", "jump") or into_pc)
    return Instruction(
        found.address, found.size, kind, words, frozenset(map(name, read)) | (registers - writes), writes, address,
        any(m.index for m in memory), target, ends,
    )  # fmt: skip
