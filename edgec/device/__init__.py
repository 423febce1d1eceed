"""Run a compiled model on one of the devices: this computer, unicorn, QEMU boards, 64-bit ARM under qemu-user,
CUDA GPUs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from edgec.device.base import Counters, Device
from edgec.errors import InputError, ToolchainError
from edgec.target import EMULATOR, KINDS, Target, load_target
from edgec.toolchain import Manifest, build_aarch64, build_cuda, build_image, build_shared, host_obstacle, read_manifest

COUNTING = ("unicorn", "qemu", "qemu-aarch64")  # the devices that count instructions, the exact one first

__all__ = [
    "COUNTING", "KINDS", "Counters", "Device", "counting_kind", "default_kind", "device_of", "open_device",
    "open_image",
]  # fmt: skip


def open_device(
    kind: str,
    folder: Path | str,
    manifest: Manifest | None = None,
    target: Target | str | None = None,
    *,
    toolchain: str = "zig",
    cc: str | None = None,
    profile: bool = False,
    counting: bool = False,
    flow: bool = False,
    instances: int = 1,
    opt: str | None = None,
    build_dir: Path | str | None = None,
) -> Device:
    """Build the model in `folder` for the device, one of KINDS, and start it. `manifest` defaults to the folder's,
    `target` to the manifest's. What is built stays in `build_dir` if given. `profile` allows watch() and dump() and
    counts per node;
    `counting` fills counters (unicorn: exact, qemu: to one tick, qemu-aarch64: to a few instructions), `flow` the flows
    too (unicorn and qemu, then exact); `cc` is the host's compiler."""
    folder = Path(folder)
    manifest = manifest or read_manifest(folder)
    target = target or manifest.target
    target = load_target(target) if isinstance(target, str) else target
    kind = device_of(kind, target)
    if instances < 1:
        raise InputError(f"instances: expected at least 1, found {instances}")
    work = Path(build_dir) if build_dir is not None else Path(tempfile.mkdtemp(prefix="edgec-device-"))
    work.mkdir(parents=True, exist_ok=True)
    suffix = "-profile" if profile else ""
    out = work / f"{manifest.name}-{kind}{suffix}{'.so' if kind in ('host', 'cuda') else '.elf'}"
    try:
        if kind == "host":
            build_shared(folder, out, cc=cc, profile=profile, opt=opt)
        elif kind == "qemu-aarch64":
            build_aarch64(folder, target, out, profile=profile, instances=instances, opt=opt)
        elif kind == "cuda":
            build_for_gpu(folder, target, out, profile)
        else:
            build_image(folder, target, out, toolchain=toolchain, profile=profile, instances=instances, opt=opt)
        device = open_image(
            kind, out, manifest, target, profile=profile, counting=counting, flow=flow, instances=instances
        )
        return device.own(work if build_dir is None else None)
    except BaseException:
        if build_dir is None:
            shutil.rmtree(work, ignore_errors=True)
        raise


def default_kind(folder: Path | str, manifest: Manifest | None = None) -> str:
    """Where a compiled folder runs unless told otherwise: on this computer, or on its target's first device."""
    manifest = manifest or read_manifest(folder)
    return load_target(manifest.target).devices[0] if host_obstacle(Path(folder), manifest) else "host"


def counting_kind(target: Target) -> str | None:
    """The device that counts the instructions of this target, if there is one."""
    return next((kind for kind in COUNTING if kind in target.devices), None)


def device_of(kind: str, target: Target) -> str:
    """The device that a name of KINDS means for a target: `emulator` is the first of its own that counts
    instructions; ToolchainError where there is none, or for another name."""
    if kind not in KINDS:
        raise ToolchainError(f"unknown device {kind!r}; known devices: {', '.join(KINDS)}")
    found = counting_kind(target) if kind == EMULATOR else kind
    if found is None:
        raise ToolchainError(f"{target.name} has no emulator", hint=f"its devices: {', '.join(target.devices)}")
    return found


def build_for_gpu(folder: Path, target: Target, out: Path, profile: bool) -> None:
    """Compile for this computer's GPU; an error when there is none comes before the compiler's minute."""
    from edgec.device.cuda import check_gpu

    if target.arch == "cuda":
        check_gpu(target)
    build_cuda(folder, target, out, profile=profile)


def open_image(
    kind: str,
    built: Path | str,
    manifest: Manifest,
    target: Target,
    *,
    profile: bool = False,
    counting: bool = False,
    flow: bool = False,
    instances: int = 1,
) -> Device:
    """Start an image (or shared library) that was built before, with the same profile and instances."""
    built = Path(built)
    if kind == "host":
        from edgec.device.host import HostDevice

        return HostDevice(built, manifest, instances=instances, profile=profile)
    if kind == "unicorn":
        from edgec.device.unicorn_device import UnicornDevice

        options = {"instances": instances, "profile": profile, "counting": counting, "flow": flow}
        return UnicornDevice(built, manifest, target, **options)  # type: ignore[arg-type]
    if kind == "qemu":
        from edgec.device.qemu import QemuDevice

        return QemuDevice(built, manifest, target, instances=instances, profile=profile, counting=counting, flow=flow)
    if kind == "qemu-aarch64":
        from edgec.device.qemu import QemuUserDevice

        return QemuUserDevice(built, manifest, target, instances=instances, profile=profile, counting=counting)
    from edgec.device.cuda import CudaDevice

    return CudaDevice(built, manifest, instances=instances, profile=profile)
