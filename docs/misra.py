"""List what cppcheck's MISRA C:2012 addon finds in the generated C of two models: writes docs/c-subset.md.

    python docs/misra.py

Needs cppcheck (apt install cppcheck). A rule that is violated and not justified in REASONS is an error: fix it, or say
why it stays.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "c-subset.md"
MODELS = {"KWS DS-CNN": str(ROOT / "tests/data/mlperf_tiny/kws_ref_model.tflite"), "Spiking LMUFormer": "lmuformer"}
DEFINES = ("__GNUC__=12", "EDGEC_SIMD_PORTABLE=1")
TARGET = "cortex-m4"

#: rule -> what it is about, and why findings of it stay
REASONS = {
    "2.2": ("operation without effect", "negation as 0 - x, as the kernel text has it"),
    "2.3": ("unused type", "the typedef is the C99 form of a compile-time assertion (EDGEC_STATIC_ASSERT)"),
    "2.5": ("unused macro", "headers of the runtime serve all models; no model uses all of them"),
    "8.7": ("external object used in one file only", "the functions are the library's interface"),
    "8.9": ("static object used in one function only", "constants stand together, apart from the code"),
    "8.14": ("restrict", "kernels promise that their buffers do not overlap; the memory plan proves it"),
    "10.1": ("operand of another kind", "arithmetic shifts of signed values, which every supported compiler has"),
    "10.3": ("narrower type assigned", "truth values as int32; steps of pointers, which the addon takes for numbers"),
    "10.8": ("result cast to another kind", "lanes of packed words are cut out as unsigned and read as signed"),
    "11.4": ("pointer and integer", "the alignment of the caller's memory is checked (EDGEC_ALIGNED)"),
    "11.5": ("pointer to void to another pointer", "the arena is bytes in which the plan places aligned buffers"),
    "11.6": ("pointer to void and integer", "as 11.4"),
    "12.1": ("precedence left to the reader", "printed expressions carry the parentheses that C needs and no more"),
    "12.3": ("comma operator", "two counters of one loop; declarators of one type"),
    "15.5": ("several returns", "arguments are checked first; special values of functions leave at once"),
    "17.8": ("parameter changed", "pointers that walk over a buffer are parameters"),
    "18.4": ("pointer arithmetic with +", "rows of a buffer are addressed by offset, as in any numeric code"),
    "20.5": ("#undef", "macros that write one function per type end with the functions they write"),
    "20.7": ("macro parameter without parentheses", "parameters that are types, names or strings cannot have any"),
    "20.10": ("# and ##", "names of functions, one per type; string literals of inline assembly"),
}  # fmt: skip

HEAD = """<!-- written by docs/misra.py -->
# The subset of C that edgec writes

C99, freestanding (`stddef.h`, `stdint.h`), no malloc, no stdio, no recursion, no function pointers, no globals that are
written, no variable-length arrays. Generated code and runtime compile without a warning under `-Wall -Wextra -Wpedantic
-Wconversion -Werror` with gcc and clang; the tests build them so.

`make misra` runs cppcheck's MISRA C:2012 addon ({version}) over the generated C and the runtime headers of two
models, with the portable twins of the DSP instructions (inline assembly is not C) and with tables cut to their first
value. A row counts the places of a rule; of no other rule does the addon find a violation. Harness and ports are not
part of a product.

"""


def generate(model: str, folder: Path) -> None:
    """The library of a model, its tables cut short: a checker takes minutes over megabytes of numbers."""
    import edgec

    edgec.compile(model, TARGET, folder)
    for path in folder.glob("*.c"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"= \{\n( +[^,\n]+),[^;]*?\n\};", r"= {\n\1,\n};", text), encoding="utf-8")


def findings(folder: Path) -> set[tuple[str, str]]:
    """Places and their rules."""
    argv = ["cppcheck", "--addon=misra", "--std=c99", "--platform=arm32-wchar_t4", "-q", *(f"-D{d}" for d in DEFINES)]
    files = [str(p) for p in sorted(folder.glob("*.c"))]
    done = subprocess.run([*argv, "-I", str(folder), *files], capture_output=True, text=True, check=True)
    places = set(re.findall(r"^(\S+?:\d+:\d+): .*\[misra-c2012-([\d.]+)\]$", done.stderr, re.MULTILINE))
    if "syntaxError" in done.stderr or not places:
        raise SystemExit(f"cppcheck could not read the code:\n{done.stderr[:2000]}")
    return places


def page(found: dict[str, set[tuple[str, str]]], version: str) -> str:
    """The text of docs/c-subset.md."""
    missing = sorted(f"{rule} at {place}" for places in found.values() for place, rule in places if rule not in REASONS)
    if missing:
        raise SystemExit("fix the code, or justify in docs/misra.py:\n  " + "\n  ".join(missing))
    counts = {name: Counter(rule for _, rule in places) for name, places in found.items()}
    rules = sorted({r for c in counts.values() for r in c}, key=lambda r: [int(n) for n in r.split(".")])
    rows = [f"| rule | {' | '.join(counts)} | about | why it stays |", f"|---|{'---:|' * len(counts)}---|---|"]
    for rule in rules:
        cells = " | ".join(str(c[rule]) for c in counts.values())
        rows.append(f"| {rule} | {cells} | {' | '.join(REASONS[rule])} |")
    return HEAD.format(version=version) + "\n".join(rows) + "\n"


def main() -> int:
    """Write the page."""
    if shutil.which("cppcheck") is None:
        print("cppcheck is not installed: apt install cppcheck", file=sys.stderr)
        return 1
    version = subprocess.run(["cppcheck", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    found = {}
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        for number, (name, model) in enumerate(MODELS.items()):
            folder = Path(work) / str(number)
            generate(model, folder)
            found[name] = findings(folder)
    PAGE.write_text(page(found, version), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
