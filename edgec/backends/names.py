"""Names of the generated C, from whatever a model calls its parts."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Collection

from edgec.ir.graph import numbered

LONGEST = 60  # characters: with c_ before it within the 63 that C99 tells apart
_KEYWORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class co_await
    co_return co_yield compl complex concept const const_cast consteval constexpr constinit continue decltype default
    delete do double dynamic_cast else enum explicit export extern false final float for friend goto if imaginary import
    inline int long module mutable namespace new noexcept noreturn not not_eq nullptr operator or or_eq override private
    protected public register reinterpret_cast requires restrict return short signed sizeof static static_assert
    static_cast struct switch template this thread_local throw true try typedef typeid typename typeof typeof_unqual
    union unsigned using virtual void volatile wchar_t while xor xor_eq"""
_TYPES = """
    int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t intptr_t uintptr_t intmax_t uintmax_t size_t
    ssize_t ptrdiff_t max_align_t nullptr_t"""
# what compilers, C libraries, Arduino, CUDA and Windows define as macros in small letters, and what gcc warns of
_DEFINED = """
    I abs arm assert constrain degrees errno far i386 interface interrupts linux main max memcpy memmove memset mips min
    near offsetof pascal radians round small sparc sq stderr stdin stdout unix va_arg va_copy va_end va_start vax"""
#: words that no name in C or C++ can be
KEYWORDS = frozenset(f"{_KEYWORDS} {_TYPES}".split())
#: those, and words that a name in a header should not be
RESERVED = KEYWORDS.union(_DEFINED.split())
#: what the functions of a library call their own
LOCALS = frozenset(
    ["arena", "cycles", "finish", "flushed", "frame", "host", "host_arena", "mark", "ready", "row", "run", "s", "since",
     "turn"]
)  # fmt: skip
#: members that a state has before those of the model
MEMBERS = frozenset(["device", "flushed", "frame", "magic", "reserved", "tail"])
# capitals are for macros, edgec_* is the runtime's, k0_* and fill_0 are kernels and padding, host_* is CUDA's
_TAKEN = re.compile(r"[A-Z][A-Z0-9_]+|(?i:edgec.*|k\d+_.*|fill_\d+|host_.*)")
# <name>.h would hide a header of the C library, of POSIX, of a compiler or of a vendor, or be no file name on Windows
_HEADERS = """
    alloca assert complex ctype errno fenv float inttypes iso646 limits locale malloc math memory setjmp signal
    stdalign stdarg stdatomic stdbit stdbool stdckdint stddef stdint stdio stdlib stdnoreturn string strings tgmath
    threads time uchar wchar wctype aio cpio dirent dlfcn endian fcntl features fmtmsg fnmatch ftw getopt glob grp iconv
    langinfo libgen libintl monetary mqueue ndbm netdb nl_types poll pthread pwd regex sched search semaphore spawn
    stropts syslog tar termios ulimit unistd utime utmpx wordexp unwind cpuid arm_acle arm_cde arm_cmse arm_fp16
    arm_mve arm_neon arduino windows cuda cuda_runtime con prn aux nul harness port shim"""
_LIBRARY_TAKEN = re.compile(r"edgec.*|pthread.*|posix.*|sem|port_.*|(com|lpt)\d|.*_weights|.*_kernels", re.IGNORECASE)


def identifier(text: str) -> str:
    """A C identifier of ASCII letters, digits and _ that begins with a letter and is no longer than LONGEST."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    name = re.sub(r"\W", "_", plain, flags=re.ASCII)
    name = name if name[:1].isalpha() else f"t_{name}"
    if len(name) > LONGEST:
        digest = f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
        name = f"{name[: LONGEST - 9]}_{digest}"
    return name


def library_name(name: str) -> str:
    """What a model's files, functions and types are called."""
    found = identifier(name)
    taken = found.lower() in _HEADERS.split() or _LIBRARY_TAKEN.fullmatch(found) is not None
    return f"model_{found}" if taken else found


def is_free(name: str, taken: Collection[str]) -> bool:
    """Whether a parameter or member may be called so. Names that differ in capitals alone are the same: a macro is
    made of each."""
    return name not in RESERVED and _TAKEN.fullmatch(name) is None and name.lower() not in taken


def unlike(name: str, stem: str, taken: set[str]) -> str:
    """An identifier for a tensor that is unlike all in `taken` (in small letters), to which it is added: the tensor's
    own name, or that with a stem before it, or with a number behind it."""
    own = identifier(name)
    found = own if is_free(own, taken) else next(n for n in numbered(f"{stem}_{own}") if is_free(n, taken))
    taken.add(found.lower())
    return found


def comment_safe(text: str) -> str:
    """Text that neither ends the comment it stands in, nor begins another, nor has what no editor shows."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.replace("*/", "* /").replace("/*", "/ *")
