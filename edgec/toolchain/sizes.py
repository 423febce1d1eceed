"""What a linked image weighs, in total and per symbol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

_ALLOC, _EXEC, _WRITE = 0x2, 0x4, 0x1


@dataclass(frozen=True)
class Sizes:
    """Bytes of an image. text, rodata, data and bss are the model's; the harness and the vector table are apart."""

    text: int
    rodata: int
    data: int
    bss: int
    harness_flash: int
    harness_ram: int

    @property
    def flash(self) -> int:
        """What the model adds to a firmware's flash."""
        return self.text + self.rodata + self.data

    @property
    def ram(self) -> int:
        """RAM of the whole image but its stack: state, arena, the caller's buffers, what the harness keeps."""
        return self.data + self.bss + self.harness_ram

    @property
    def image_flash(self) -> int:
        """Flash of the whole image, harness included."""
        return self.flash + self.harness_flash


@dataclass(frozen=True)
class Symbol:
    """A function or an object of an image: `address` without the Thumb bit."""

    name: str
    address: int
    size: int
    section: str
    is_function: bool


def image_sizes(elf: Path | str) -> Sizes:
    """Sizes from the section headers of a linked image."""
    total = {"text": 0, "rodata": 0, "data": 0, "bss": 0, "harness_flash": 0, "harness_ram": 0}
    with Path(elf).open("rb") as f:
        for section in ELFFile(f).iter_sections():
            flags = section["sh_flags"]
            if flags & _ALLOC:
                total[_kind(section.name, section["sh_type"], flags)] += section["sh_size"]
    return Sizes(**total)


def machine_of(elf: Path | str) -> str:
    """The processor an ELF file is for: x64, AArch64, ARM, ..."""
    with Path(elf).open("rb") as f:
        return str(ELFFile(f).get_machine_arch())


def _kind(name: str, section_type: str, flags: int) -> str:
    if name in (".vectors", ".harness", ".tables"):
        return "harness_flash"
    if name == ".harness_bss":
        return "harness_ram"
    if section_type == "SHT_NOBITS":
        return "bss"
    if flags & _WRITE:
        return "data"
    return "text" if flags & _EXEC else "rodata"


def symbols(elf: Path | str) -> list[Symbol]:
    """Functions and objects of an ELF file in address order, one per address."""
    found = []
    with Path(elf).open("rb") as f:
        image = ELFFile(f)
        table = image.get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            return []
        names = [s.name for s in image.iter_sections()]
        for symbol in table.iter_symbols():
            kind, index = symbol["st_info"]["type"], symbol["st_shndx"]
            if kind not in ("STT_FUNC", "STT_OBJECT") or not isinstance(index, int):
                continue
            is_function = kind == "STT_FUNC"
            address = symbol["st_value"] & ~1 if is_function else symbol["st_value"]
            found.append(Symbol(symbol.name, address, symbol["st_size"], names[index], is_function))
    return _without_overlap(found)


def _without_overlap(found: list[Symbol]) -> list[Symbol]:
    """Sizes that add up: one function may have two names (memcpy, __aeabi_memcpy: the short one is kept), and library
    code in assembly may claim the function behind it as well."""
    found.sort(key=lambda s: (s.section, s.address, -s.size, len(s.name), s.name))
    kept: list[Symbol] = []
    for symbol in found:
        if kept and kept[-1].section == symbol.section:
            last = kept[-1]
            if last.address == symbol.address:
                continue
            kept[-1] = replace(last, size=min(last.size, symbol.address - last.address))
        kept.append(symbol)
    return sorted(kept, key=lambda s: (s.address, s.name))
