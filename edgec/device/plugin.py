"""Plugins of QEMU that count: compiled here, loaded by an emulator, read through a file that both sides map."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from elftools.elf.elffile import ELFFile

from edgec.device.base import Flow
from edgec.errors import ToolchainError
from edgec.toolchain.command import run_command
from edgec.toolchain.manifest import Manifest
from edgec.toolchain.shared import build_plain_shared
from edgec.toolchain.sizes import symbols

_NOWHERE = 0xFFFFFFF0


def build_plugin(program: str, source: str, out: Path) -> None:
    """Compile a plugin of this folder for an installed QEMU."""
    announced = f"-DEDGEC_PLUGIN_VERSION={_plugin_version(program)}"
    build_plain_shared(Path(__file__).with_name(source), out, flags=("-D_GNU_SOURCE", announced))


@functools.cache
def _plugin_version(program: str) -> int:
    """Version of the plugin interface to announce: QEMU 9.0 stopped taking the first (its release notes)."""
    text = run_command([program, "--version"], f"asking {program} for its version")
    found = re.search(r"version (\d+)", text)
    if found is None:
        raise ToolchainError(f"{program} --version: expected a version number, found {text.splitlines()[0]!r}")
    return 1 if int(found[1]) < 9 else 2


class BoardFlows:
    """What board_counter.c counts: `options` load it into qemu-system-arm, read() gives the last step or flush."""

    def __init__(self, program: str, work: Path, elf: Path, manifest: Manifest, profile: bool) -> None:
        with elf.open("rb") as f:
            text = ELFFile(f).get_section_by_name(".text")
            assert text is not None, f"{elf} has no code"
            self._start, self._code = int(text["sh_addr"]), text.data()
        at = {s.name: s for s in symbols(elf)}
        p, counted = manifest.prefix, profile and "edgec_mark" in at
        self._nodes = max((n.id for n in manifest.nodes), default=-1) + 1 if counted else 0
        self._words = len(self._code) // 2 + 1
        entry = {"step": f"{p}_step", "flush": f"{p}_flush"}
        values = {name: at[symbol].address if symbol in at else _NOWHERE for name, symbol in entry.items()}
        values |= {"mark": _NOWHERE, "mark_end": _NOWHERE, "ticks": _NOWHERE}
        if counted:
            mark = at["edgec_mark"]
            values |= {
                "mark": mark.address,
                "mark_end": mark.address + mark.size,
                "ticks": at["edgec_node_ticks"].address,
            }
        values |= {"code": self._start, "words": self._words, "nodes": self._nodes}
        counts, plugin = work / "flows", work / "board_counter.so"
        header = 2 + self._nodes + self._nodes + 1
        counts.write_bytes(bytes(8 * header + 12 * self._words * (self._nodes + 2)))
        build_plugin(program, "board_counter.c", plugin)
        arguments = [f"{name}={value}" for name, value in values.items()]
        self.options = ["-plugin", ",".join([str(plugin), f"counts={counts}", *arguments])]
        self._header = np.memmap(counts, np.uint64, "r", 0, (header,))
        self._flows = np.memmap(counts, np.uint32, "r", 8 * header, (self._nodes + 2, 3, self._words))

    def read(self, ids: Iterable[int]) -> tuple[dict[int, Flow], dict[int, int]]:
        """Flows and instructions per node, and under -1 of what belongs to none."""
        total, lost = (int(n) for n in self._header[:2])
        if lost:
            raise ToolchainError("instruction counting lost track of the model: control left the image's code")
        per_node = {k: int(self._header[2 + k]) for k in ids}
        flows = {}
        for node in [*per_node, -1]:
            begun, ended, left = np.array(self._flows[1 + (node if node >= 0 else self._nodes)])
            flows[node] = Flow(self._start, self._code, begun, ended, left)
        per_node[-1] = total - sum(per_node.values())
        return flows, per_node
