"""Write the generated pages: docs/ops.md, targets.md, cli.md, options.md, nn.md, the figures in README.md and
models/*/card.md.

    python docs/generate.py [--check]

--check writes nothing and fails when a file is not current; the test suite runs it.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import io
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEER = "C that calls CMSIS-NN"  # the leanest peer whose instructions are counted
HEAD = "<!-- written by docs/generate.py -->\n"
FIGURES = "<!-- figures: written by docs/generate.py from bench/lmuformer.json -->", "<!-- end of figures -->"
MLPERF = "<!-- mlperf: written by docs/generate.py from bench/mlperf_tiny.txt and .toml -->", "<!-- end of mlperf -->"
ZOO = "<!-- zoo: written by docs/generate.py from the cards -->", "<!-- end of zoo -->"


def ops_page() -> str:
    """One row an op: what it is, whether it streams, which kernels it has."""
    from edgec.kernels import FEW_BITS, TABLES
    from edgec.ops import OPS
    from edgec.ops.relations.axes import can_stream

    rows = ["| op | what | streams | kernels |", "|---|---|---|---|"]
    for name, op in sorted(OPS.items()):
        variants = [v for table in (*TABLES.values(), *FEW_BITS.values()) for v, _ in table.get(op, ())]
        kernels = (["view"] if op.is_view else []) + (["generic"] if op.lower is not None else []) + variants
        what = (op.__doc__ or "").strip().splitlines()[0].replace("|", "\\|")
        rows.append(f"| `{name}` | {what} | {'yes' if can_stream(op) else ''} | {', '.join(dict.fromkeys(kernels))} |")
    return HEAD + "# Ops\n\nEvery op of the IR (`edgec ops`).\n\n" + "\n".join(rows) + "\n"


def targets_page() -> str:
    """One row a target."""
    from edgec.target import list_targets, load_target

    rows = [
        "| target | what | core | backend | kernel sets | flash | RAM | fast memory | clock | devices |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in list_targets():
        t = load_target(name)
        fast = ", ".join(f"{r.name} {r.length >> 10:,} K" for r in t.fast_regions)
        rows.append(
            f"| `{name}` | {t.summary} | {t.cpu} | {t.backend} | {', '.join(t.isa)} | {t.flash_bytes >> 10:,} K "
            f"| {t.ram_bytes >> 10:,} K | {fast} | {t.clock_hz / 1e6:g} MHz | {', '.join(t.devices)} |"
        )
    head = HEAD + "# Targets\n\nEvery file of `targets/` (`edgec targets`).\n\n"
    return head + "\n".join(rows) + "\n" + costs()


def costs() -> str:
    """Instructions per MAC by precision."""
    from edgec.target import Cost, list_targets, load_target

    names = [f.name for f in dataclasses.fields(Cost)]
    rows = ["| target | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for name in list_targets():
        found = load_target(name).cost
        if found is not None:
            rows.append("| " + " | ".join([f"`{name}`", *(f"{getattr(found, n):.3f}" for n in names)]) + " |")
    head = (
        "\n## Instructions per MAC\n\nOf a 1x1 convolution, 64 to 64 channels over 25x5 pixels, all told, by bits of "
    )
    head += "weights (w) and activations (a),\ncounted on the emulated core (`python bench/precisions.py`).\n\n"
    return head + "\n".join(rows) + "\n"


def nn_page() -> str:
    """Every module of edgec.nn: its docstring, and its arguments with their defaults."""
    from torch import nn

    import edgec.nn

    parts = [HEAD + "# edgec.nn\n\nTorch modules that export as one node each; `import edgec`, then `edgec.nn.LogMel`."]
    for name, module in sorted(vars(edgec.nn).items()):
        if isinstance(module, type) and issubclass(module, nn.Module):
            parts.append(f"\n## {name}\n\n{module_section(module)}")
    return "\n".join(parts) + "\n"


def module_section(module: type) -> str:
    """Prose of a docstring whose last paragraph holds `argument: meaning` lines, then those as a table. KeyError for an
    argument that has no line."""
    prose, _, lines = (inspect.getdoc(module) or "").rpartition("\n\n")
    meanings = dict(line.split(": ", 1) for line in lines.splitlines())
    rows = ["| argument | default | meaning |", "|---|---|---|"]
    for p in list(inspect.signature(module.__init__).parameters.values())[1:]:
        default = "" if p.default is p.empty else f"`{p.default!r}`"
        rows.append(f"| `{p.name}` | {default} | {meanings.pop(p.name)} |")
    if meanings:
        raise KeyError(f"{module.__name__} has no arguments {', '.join(meanings)}")
    return prose + "\n\n" + "\n".join(rows)


def cli_page() -> str:
    """The help of every command."""
    from edgec.cli import parser

    os.environ["COLUMNS"] = "100"
    top = parser()
    parts = [HEAD + "# Command line\n", block(top)]
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                parts += [f"\n## edgec {name}\n", block(sub)]
    return "\n".join(parts) + "\n"


def options_page() -> str:
    """A row for every choice: what it is called in edgec.toml and Python, and on the command line."""
    from edgec.config import PLACES
    from edgec.flags import flags_of, help_of
    from edgec.options import GROUPS

    parts = [HEAD + OPTIONS]
    for name, choices in {"": PLACES.values(), **{k: dataclasses.fields(g) for k, g in GROUPS.items()}}.items():
        what = (GROUPS[name].__doc__ or "").partition("\n\n")[0].replace("\n    ", " ") if name else WORKED_ON
        parts.append(f"\n## {f'[{name}]' if name else 'Before the first table'}\n\n{what}\n")
        parts += ["| key, keyword | command line | type | values | meaning |", "|---|---|---|---|---|"]
        for f in choices:
            flags = (*flags_of(f), *f.metadata.get("off", ())[:1]) if f.name != "model" else ("MODEL",)
            known = ", ".join(map(str, f.metadata.get("allowed", ())))
            kind = str(f.type).replace("|", "\\|")
            shown = ", ".join(f"`{flag}`" for flag in flags)
            parts.append(f"| `{f.name}` | {shown} | `{kind}` | {known} | {help_of(f)} |")
    return "\n".join(parts) + "\n"


OPTIONS = """# Options

Every choice of a compile has one name: the key in `edgec.toml`, the keyword of `edgec.compile`, the field of
`edgec.Options`. The table below is made from those fields (`edgec/options.py`), and so are the options of the command
line.

```python
base = edgec.Options.of(goal="size", weights=4)  # or by groups: edgec.Options(code=edgec.options.Code(goal="size"))
model = edgec.compile("net.pt2", "cortex-m4", "out", options=base, hop=2, calibration=x)  # hop on top of base
again = edgec.compile("net.pt2", "cortex-m4", "again", options=model.options, calibration=x)  # the same bytes
```

What stands nearest wins: a keyword over `options`; the command line over the file, key by key; the file over the
defaults. A `budget` given as a keyword, and the layers of `bits`, replace those below as a whole, and what the nearer
choice excludes goes: `--whole` beside a file with `sliding` and `hop` compiles a whole window.

`edgec compile --config edgec.toml` reads a file; `edgec compile --show-options` prints the one that would do the same
as the rest of that command line, with where each value comes from, and compiles nothing. A key that is unknown, of
another type or of a value that there is not is refused, with all others that are wrong. Relative paths in a file
start at its folder. TOML has no null: a key that is left out has its default, and the axis `None` is the word `none`.
Sizes may be bytes or text such as `"128K"`, the latency milliseconds or text such as `"500us"`.

`manifest.json` of a compiled folder holds them all under `options` (`edgec.open(folder).options`), and under
`made_of` the names of the model and of its calibration data. It names no folder of the computer that compiled: of
`tune` it holds whether kernels were measured, not where the measurements are kept. `edgec calibrate` takes `[form]`,
by option or with `--config`.
"""
WORKED_ON = "What a compile works on; `edgec.compile` takes each by itself, beside the `options`."


def block(parser: argparse.ArgumentParser) -> str:
    """The help of one parser as a code block."""
    text = io.StringIO()
    parser.print_help(text)
    return "```\n" + text.getvalue().rstrip() + "\n```"


def figures(data: dict[str, Any]) -> str:
    """The tables of measured figures."""
    rows = ["| | torch, float | compiled float32 | compiled int8 |", "|---|---:|---:|---:|"]
    both = [data["float32"], data["int8"]]

    def row(label: str, torch_value: str, values: list[str]) -> None:
        rows.append("| " + " | ".join([label, torch_value, *values]) + " |")

    row(
        f"accuracy, {data['clips']} test clips, streamed",
        f"{100 * data['torch_accuracy']:.1f} %",
        [f"{100 * d['accuracy']:.1f} %" for d in both],
    )
    row("flash of the model in the linked image", "", [f"{d['flash']:,} B" for d in both])
    row("of it weights and tables", "", [f"{d['weights']:,} B" for d in both])
    row("RAM: state + arena + stack", "", [f"{d['state']:,} + {d['arena']:,} + {d['stack']:,} B" for d in both])
    row("instructions per frame, mean", "", [f"{d['instructions_mean']:,}" for d in both])
    row("instructions per frame, worst", "", [f"{d['instructions_worst']:,}" for d in both])
    row("instructions per dense-equivalent MAC, mean", "", [f"{d['instructions_per_mac']:.2f}" for d in both])
    row("delay in frames of 10 ms", "", [str(d["delay"]) for d in both])
    note = (
        f"{data['int8']['macs']:,} dense-equivalent MACs a frame. Instructions are counted on the emulated Cortex-M7 "
        f"over {data['int8']['frames']:,} frames of the shipped clips; stack is the high-water mark of the painted "
        "stack; flash is text + rodata + data of the linked image without the harness. Command: `make bench`."
    )
    return "\n".join(rows) + "\n\n" + note


def readme() -> str:
    """README.md with its generated parts replaced."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    data = json.loads((ROOT / "bench" / "lmuformer.json").read_text(encoding="utf-8"))
    for (begin, end), part in ((FIGURES, figures(data)), (MLPERF, mlperf()), (ZOO, zoo())):
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{part}\n{end}{after}"
    return text


def mlperf() -> str:
    """Figures of one inference that bench/mlperf_tiny.py has measured, and those of C that calls CMSIS-NN."""
    bench, model = ROOT / "bench" / "mlperf_tiny.txt", ""
    ours: dict[tuple[str, str], list[str]] = {}
    boards: dict[tuple[str, str], str] = {}
    for line in bench.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if not cells and ": " in line:
            model = line.partition(":")[0]
        elif cells[1:2] == ["edgec, --goal latency"]:
            ours[model, cells[0]] = cells
        elif cells[1:2] == ["edgec, estimate"]:
            boards[model, cells[0]] = f"{cells[5]} {cells[2]}"
    peers = tomllib.loads(bench.with_suffix(".toml").read_text(encoding="utf-8"))["counted"]
    head = "network | core | instructions | cycles, modelled | cycles on a board, estimated | flash | RAM"
    rows = [f"| {head} | CMSIS-NN: instructions | flash | RAM |"]
    rows.append("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for (name, core), (_, _, instructions, _, cycles, flash, ram, _) in ours.items():
        peer = next((p[name] for p in peers if p["core"] == core and p["stack"] == PEER), {})
        theirs = [f"{peer[k]:,}" if peer else "" for k in ("instructions", "flash", "ram")]
        figures = [instructions, cycles, boards.get((name, core), ""), flash, ram, *theirs]
        rows.append(f"| {name} | Cortex-{core.upper()} | {' | '.join(figures)} |")
    return "\n".join(rows)


def zoo() -> str:
    """The table of the shipped models, as `edgec models` shows it."""
    from edgec.zoo.cards import all_cards
    from edgec.zoo.page import OVERVIEW, OVERVIEW_NOTE, WORDS, overview

    ruler = "|".join("---" if column in WORDS else "---:" for column in OVERVIEW)
    rows = [f"| {' | '.join(overview(card))} |" for card in all_cards()]
    return "\n".join([f"| {' | '.join(OVERVIEW)} |", f"|{ruler}|", *rows]) + f"\n\n{OVERVIEW_NOTE}."


def pages() -> dict[Path, str]:
    """Every generated file and its text."""
    docs = ROOT / "docs"
    return {
        docs / "ops.md": ops_page(),
        docs / "targets.md": targets_page(),
        docs / "cli.md": cli_page(),
        docs / "options.md": options_page(),
        docs / "nn.md": nn_page(),
        ROOT / "README.md": readme(),
        **cards(),
    }


def cards() -> dict[Path, str]:
    """card.md of every family with measured figures: from its .card.json files and about.md, nothing is measured."""
    from edgec.zoo.cards import PAGE, page_of

    families = {p.parent for p in (ROOT / "models").glob("*/*.card.json")}
    return {folder / PAGE: page_of(folder) for folder in sorted(families)}


def main() -> int:
    """Write the pages, or check them."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true")
    check = arguments.parse_args().check
    stale = []
    for path, text in pages().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(text, encoding="utf-8")
    if stale:
        print(("not current, run `make docs`: " if check else "wrote ") + ", ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
