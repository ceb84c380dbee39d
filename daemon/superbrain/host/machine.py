"""What the operating system tells of this machine, read for a diagnosis.

Everything comes from /proc, /sys and a few calls; what this user may not see, or this kernel does
not have, is left open. Nothing here raises, and nothing needs more than a moment.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import os
import platform
import re
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Final

import psutil

from superbrain.domain.machine import Disk, Machine, Processor, flags_of_interest
from superbrain.domain.probe import NvidiaHardware
from superbrain.host.sandbox import filter as seccomp
from superbrain.host.sandbox import landlock

SYSTEMCTL_S: Final = 10.0
UNIT: Final = "superbraind.service"
_UNSYNCHRONISED: Final = 0x40  # STA_UNSYNC
_TIMEX_WORDS: Final = 64  # more than struct timex has
_TIMEX_STATUS: Final = 40  # offset of `status` where long has 8 bytes
_LONG_BYTES: Final = 8
_NO_LIMIT: Final = "max"
_NVIDIA: Final = "0x10de"
_DISPLAY_CLASS: Final = "0x03"
_VERSION: Final = re.compile(r"\d+\.\d+(\.\d+)*")


def read_machine(root: Path = Path("/")) -> Machine:
    """Read everything; `root` is where /proc, /sys and /etc lie, for tests."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    name = os.uname()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    has_systemd = (root / "run/systemd/system").is_dir()
    return Machine(
        system=_system(root),
        kernel=name.release,
        machine=name.machine,
        python=platform.python_version(),
        up_s=max(0.0, dt.datetime.now(dt.UTC).timestamp() - psutil.boot_time()),
        processor=read_processor(root, name.machine),
        load_1m=os.getloadavg()[0],
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        memory_limit_bytes=_memory_limit(root),
        swap_total_bytes=swap.total,
        swap_used_bytes=swap.used,
        inotify_watches=_number(root / "proc/sys/fs/inotify/max_user_watches"),
        inotify_instances=_number(root / "proc/sys/fs/inotify/max_user_instances"),
        descriptors=soft,
        landlock_abi=landlock.abi(),
        system_call_filter=_filters(root),
        year=dt.datetime.now(dt.UTC).year,
        clock_synchronised=_synchronised(),
        has_systemd=has_systemd,
        service=_service() if has_systemd else "",
    )


def read_processor(root: Path, machine: str) -> Processor:
    """Read /proc/cpuinfo, the cores, and how many of them this process may use."""
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    threads = os.cpu_count() or 1
    model = fields.get("model name") or _model(root) or f"{machine} processor"
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return Processor(
        model=" ".join(model.split()),
        cores=psutil.cpu_count(logical=False) or threads,
        threads=threads,
        usable=len(os.sched_getaffinity(0)),
        quota=_quota(root),
        flags=flags_of_interest(machine, flags),
    )


def read_disk(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> Disk | None:
    """Read the file system of a folder, or of where it will be made; None when nobody tells."""
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        return Disk(
            path=os.fspath(place),
            kind=_kind(place, mounts),
            total_bytes=found.f_blocks * found.f_frsize,
            free_bytes=found.f_bavail * found.f_frsize,
            free_inodes=found.f_favail if found.f_files else None,
            read_only=bool(found.f_flag & os.ST_RDONLY),
        )
    return None


def nvidia_hardware(root: Path = Path("/")) -> NvidiaHardware:
    """Look for GPUs of NVIDIA, without asking their driver."""
    devices = (root / "sys/bus/pci/devices").glob("*")
    displays = [one for one in devices if _text(one / "class").startswith(_DISPLAY_CLASS)]
    compatible = _text(root / "proc/device-tree/compatible")
    version = _VERSION.search(_text(root / "proc/driver/nvidia/version"))
    nodes = sorted((root / "dev").glob("nvidia*"))
    return NvidiaHardware(
        devices=sum(_text(one / "vendor").strip() == _NVIDIA for one in displays),
        board="nvidia,tegra" in compatible,
        driver=version.group() if version else "",
        closed=[str(one) for one in nodes if one.is_char_device() and not _may_open(one)],
    )


def _may_open(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK)


def _kind(place: Path, mounts: Path) -> str:
    """Give the kind of the file system, of the longest mount point that holds the place."""
    real, best, kind = os.path.realpath(place), "", "unknown"
    for line in _text(mounts).splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        point = words[1].replace("\\040", " ")
        within = point in {"/", real} or real.startswith(f"{point}/")
        if within and len(point) >= len(best):
            best, kind = point, words[2]
    return kind


def _system(root: Path) -> str:
    for line in _text(root / "etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return "unknown system"


def _model(root: Path) -> str:
    """Boards tell what they are, where their processors do not."""
    return _text(root / "proc/device-tree/model").strip("\0 \n")


def _quota(root: Path) -> float | None:
    """Give how many processors the control group grants, None for all."""
    words = _text(_group(root) / "cpu.max").split()
    if len(words) != 2 or words[0] == _NO_LIMIT:
        return None
    return round(int(words[0]) / int(words[1]), 2)


def _memory_limit(root: Path) -> int | None:
    return _number(_group(root) / "memory.max")


def _group(root: Path) -> Path:
    """Give the folder of this process's control group (version 2)."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            return root / "sys/fs/cgroup" / line.removeprefix("0::").strip().lstrip("/")
    return root / "sys/fs/cgroup"


def _filters(root: Path) -> bool:
    """Whether system calls can be filtered here: the kernel does, and the filter knows it."""
    offered = _text(root / "proc/sys/kernel/seccomp/actions_avail").split()
    return "errno" in offered and seccomp.this_machine() is not None


def _synchronised() -> bool | None:
    """Ask the kernel whether something keeps the clock right."""
    if ctypes.sizeof(ctypes.c_long) != _LONG_BYTES:
        return None
    words = (ctypes.c_long * _TIMEX_WORDS)()
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(words)
    except (OSError, AttributeError):
        return None
    if answer < 0:
        return None
    status = ctypes.c_int.from_buffer(words, _TIMEX_STATUS).value
    return not status & _UNSYNCHRONISED


def _service() -> str:
    """Say what systemd knows of the service, such as `active (running), starts with the host`."""
    program = shutil.which("systemctl")
    if program is None:
        return ""
    command = [program, "show", UNIT, "--property=LoadState,ActiveState,SubState,UnitFileState"]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=SYSTEMCTL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    fields = dict(line.partition("=")[::2] for line in ended.stdout.splitlines())
    if fields.get("LoadState") != "loaded":
        return ""
    state = f"{fields.get('ActiveState', 'unknown')} ({fields.get('SubState', 'unknown')})"
    starts = "starts" if fields.get("UnitFileState") == "enabled" else "does not start"
    return f"{state}, {starts} with the host"


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
