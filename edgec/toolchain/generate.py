"""Text generated around a model: the harness's edgec_image.h and the linker script of a target."""

from __future__ import annotations

from edgec.target import Target
from edgec.toolchain.manifest import Manifest, TensorSpec

# Output sections of the harness are apart from the model's, so that an image's size can be told from both.
HARNESS_OBJECTS = ("port_cortex_m.o", "harness.o")


def image_header(manifest: Manifest, instances: int) -> str:
    """edgec_image.h: what harness.c needs to know about one model."""
    names_in = [f"edgec_in{i}" for i in range(len(manifest.inputs))]
    names_out = [f"edgec_out{i}" for i in range(len(manifest.outputs))]
    buffers = [_buffer(n, t) for n, t in zip(names_in + names_out, manifest.inputs + manifest.outputs, strict=True)]
    p, cycles = manifest.prefix, ["edgec_cycles"] if manifest.cycles else []
    macros = {
        "STATE": f"{p}_state",
        "STATE_PLACE": section_of(manifest, "state"),
        "ARENA_PLACE": section_of(manifest, "arena"),
        "ARENA_BYTES": f"{p.upper()}_ARENA_BYTES",
        "INSTANCES": f"{instances}u",
        "NODES": f"{max((n.id for n in manifest.nodes), default=0) + 1}u",
        "INIT(s)": f"{p}_init(s)",
        "RESET(s)": f"{p}_reset(s)",
        "STEP(s, a)": f"{p}_step({', '.join(['s', 'a', *names_in, *names_out, *cycles])})",
        "FLUSH(s, a)": f"{p}_flush({', '.join(['s', 'a', *names_out, *cycles])})",
        "BUFFERS": " ".join(buffers),
        "INPUTS": _table(names_in),
        "OUTPUTS": _table(names_out),
    }
    if cycles:
        macros["CYCLES"] = f"{manifest.cycles}u"
    lines = [f"#define EDGEC_IMAGE_{key} {value}" for key, value in macros.items()]
    counter = '#include "edgec_dwt.h"\n' if cycles else ""
    return f'/* Generated for the harness. */\n#include "{manifest.name}.h"\n{counter}' + "\n".join(lines) + "\n"


def section_of(manifest: Manifest, item: str) -> str:
    """Attribute of the state or the arena; nothing where it lies in ordinary RAM."""
    region = manifest.regions.get(item, "ram")
    return "" if region == "ram" else f'EDGEC_SECTION(".edgec_{region}_zero")'


def _buffer(name: str, tensor: TensorSpec) -> str:
    return f"static EDGEC_ALIGN(16) {tensor.ctype} {name}[{tensor.bytes} / sizeof({tensor.ctype})];"


def _table(names: list[str]) -> str:
    return "{ " + ", ".join(f"{{ {n}, sizeof {n} }}" for n in names) + " }"


def host_shim(manifest: Manifest) -> str:
    """C that tells a shared library's loader the sizes the host's compiler chose."""
    p = manifest.prefix
    return (
        f'#include "{manifest.name}.h"\n'
        "size_t edgec_state_bytes(void);\n"
        "size_t edgec_arena_bytes(void);\n"
        f"size_t edgec_state_bytes(void) {{\n    return sizeof({p}_state);\n}}\n"
        f"size_t edgec_arena_bytes(void) {{\n    return (size_t){p.upper()}_ARENA_BYTES;\n}}\n"
    )


def linker_script(target: Target) -> str:
    """GNU linker script (lld takes it too) for the target's memory map."""
    access = {"ram": "rwx"} | {r.name: "rwx" for r in target.fast_regions}
    regions = "\n".join(
        f"    {r.name.upper()} ({access.get(r.name, 'rx')}) : ORIGIN = {r.origin:#010x}, LENGTH = {r.length:#x}"
        for r in target.regions
    )
    rodata = "RODATA" if any(r.name == "rodata" for r in target.regions) else "CODE"
    ram = target.region("ram")
    fast = [r.name for r in target.fast_regions]
    copies = "".join(f" LONG(edgec_{r}_load) LONG(edgec_{r}_start) LONG(edgec_{r}_end)" for r in ["data", *fast])
    zeros = "".join(f" LONG(edgec_{r}_start) LONG(edgec_{r}_end)" for r in ["bss", *(f"{r}_zero" for r in fast)])
    top = ram.origin + ram.length
    return f"""\
MEMORY {{
{regions}
}}
ENTRY(edgec_reset)
SECTIONS {{
    .vectors : {{ KEEP(*(.vectors)) }} > CODE
    .harness : {{ {_harness(".text .text.* .rodata .rodata.*")} }} > CODE
    .text : {{ *(.text .text.*) }} > CODE
    .tables : ALIGN(4) {{
        edgec_copies = .;{copies}
        edgec_copies_end = .;
        edgec_zeros = .;{zeros}
        edgec_zeros_end = .;
    }} > CODE
    .rodata : ALIGN(16) {{ *(.rodata .rodata.*) }} > {rodata}
    .data : ALIGN(16) {{
        edgec_data_start = .;
        *(.data .data.*)
        . = ALIGN(4);
        edgec_data_end = .;
    }} > RAM AT > CODE
    edgec_data_load = LOADADDR(.data);
{"".join(map(_fast_sections, fast))}\
    .harness_bss (NOLOAD) : ALIGN(16) {{ edgec_bss_start = .; {_harness(".bss .bss.*")} }} > RAM
    .bss (NOLOAD) : ALIGN(16) {{
        *(.bss .bss.* COMMON)
        . = ALIGN(4);
        edgec_bss_end = .;
    }} > RAM
    edgec_stack_top = {top:#010x};
    edgec_stack_limit = {top - target.stack_bytes:#010x};
    ASSERT(edgec_bss_end <= edgec_stack_limit, "state, arena and buffers leave no room for the stack")
    /DISCARD/ : {{ *(.debug_*) *(.ARM.exidx .ARM.exidx.* .ARM.extab .ARM.extab.*) }}
}}
"""


def _harness(sections: str) -> str:
    """Sections of what is in an image but no part of the library."""
    return " ".join(f"*{o}({sections})" for o in HARNESS_OBJECTS)


def _fast_sections(region: str) -> str:
    """Output sections of a fast memory: constants that start-up copies there, and what it clears."""
    return f"""\
    .{region} : ALIGN(16) {{
        edgec_{region}_start = .;
        *(.edgec_{region})
        . = ALIGN(4);
        edgec_{region}_end = .;
    }} > {region.upper()} AT > CODE
    edgec_{region}_load = LOADADDR(.{region});
    .{region}_zero (NOLOAD) : ALIGN(16) {{
        edgec_{region}_zero_start = .;
        *(.edgec_{region}_zero)
        . = ALIGN(4);
        edgec_{region}_zero_end = .;
    }} > {region.upper()}
"""
