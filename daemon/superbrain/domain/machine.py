"""The machine below everything: what is known of it, and what of that is worth a word.

Facts come from host/machine.py; what could not be seen is None or empty, and is said calmly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from superbrain.domain.diagnosis import Finding, note, ok, problem
from superbrain.domain.health_rules import (
    DISK_FREE_CRITICAL_PERCENT,
    DISK_FREE_WARNING_BYTES,
    DISK_FREE_WARNING_PERCENT,
    MEMORY_AVAILABLE_WARNING_PERCENT,
)
from superbrain.domain.quantities import bytes_text, duration_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MACHINES: Final = ("x86_64", "aarch64")
LEAST_WATCHES: Final = 64
LEAST_INSTANCES: Final = 8
LEAST_DESCRIPTORS: Final = 1024
LANDLOCK_SINCE: Final = "5.13"
EARLIEST_YEAR: Final = 2025
SWAPPED_PERCENT: Final = 50.0
#: Flags of a processor that decide how fast graphs run, by machine; the first is the one to have.
FLAGS: Final = {
    "x86_64": ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"),
    "aarch64": ("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve"),
}
_NETWORK: Final = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "glusterfs", "9p")
_GONE_AT_REBOOT: Final = ("tmpfs", "ramfs")


class Processor(msgspec.Struct, frozen=True):
    """Its model, how many cores there are and may be used, and its flags."""

    model: str
    cores: int
    threads: int
    usable: int
    quota: float | None = None
    flags: list[str] = []


class Disk(msgspec.Struct, frozen=True):
    """The file system that holds a folder."""

    path: str
    kind: str
    total_bytes: int
    free_bytes: int
    free_inodes: int | None = None
    read_only: bool = False


class Machine(msgspec.Struct, frozen=True):
    """What the operating system tells.

    `memory_limit_bytes`: of the control group, None for none; `landlock_abi`: 0 for none;
    `clock_synchronised`: None where the kernel does not tell; `service`: what systemd says of
    superbraind, empty where it is not installed or there is no systemd.
    """

    system: str
    kernel: str
    machine: str
    python: str
    up_s: float
    processor: Processor
    load_1m: float | None
    memory_total_bytes: int
    memory_available_bytes: int
    memory_limit_bytes: int | None
    swap_total_bytes: int
    swap_used_bytes: int
    inotify_watches: int | None
    inotify_instances: int | None
    descriptors: int
    landlock_abi: int
    system_call_filter: bool
    year: int
    clock_synchronised: bool | None
    has_systemd: bool
    service: str


def machine_findings(found: Machine) -> list[Finding]:
    """Judge the machine."""
    return [
        _system(found),
        *_processor(found),
        _memory(found),
        _swap(found),
        _sandbox(found),
        *_limits(found),
        _clock(found),
        _service(found),
    ]


def disk_findings(name: str, subject: str, disk: Disk) -> Iterator[Finding]:
    """Judge the file system of a folder."""
    percent = 100 * disk.free_bytes / disk.total_bytes if disk.total_bytes else 100.0
    size = f"{bytes_text(disk.free_bytes)} of {bytes_text(disk.total_bytes)} free"
    found = f"{size} on {disk.kind} at {disk.path}"
    if disk.read_only:
        yield problem(name, subject, f"{found}, read-only", "mount it writable; see dmesg for why")
    elif percent < DISK_FREE_CRITICAL_PERCENT or disk.free_inodes == 0:
        yield problem(name, subject, f"{found}: full", "make room; nothing can be stored on it")
    elif percent < DISK_FREE_WARNING_PERCENT or disk.free_bytes < DISK_FREE_WARNING_BYTES:
        yield note(name, subject, found, "make room before the next bundle comes")
    elif disk.kind in _GONE_AT_REBOOT:
        mend = "put it on a disk: what is stored there is gone after a restart of the machine"
        yield note(name, subject, found, mend)
    elif disk.kind in _NETWORK:
        mend = "put it on a local disk: the journal needs locks, and models must load without a net"
        yield note(name, subject, found, mend)
    else:
        yield ok(name, subject, found)


def _system(found: Machine) -> Finding:
    text = f"{found.system}, Linux {found.kernel}, {found.machine}, up {duration_text(found.up_s)}"
    if found.machine not in MACHINES:
        mend = f"expected {' or '.join(MACHINES)}: the packages of runtimes are made for these"
        return note("system", "system", text, mend)
    return ok("system", "system", text)


def _processor(found: Machine) -> Iterator[Finding]:
    cpu = found.processor
    cores = f"{cpu.cores} core{'' if cpu.cores == 1 else 's'}"
    if cpu.threads != cpu.cores:
        cores += f" ({cpu.threads} threads)"
    text = f"{cpu.model}, {cores}"
    if cpu.usable != cpu.threads:
        text += f", {cpu.usable} usable"
    if cpu.quota is not None:
        text += f", limited to {cpu.quota:g} by its control group"
    busy = found.load_1m is not None and found.load_1m > 2 * cpu.usable
    if busy:
        yield note("processor", "processor", text, f"load {found.load_1m:.1f}: see who uses it")
    else:
        yield ok("processor", "processor", text)
    yield _flags(found)


def _flags(found: Machine) -> Finding:
    known = FLAGS.get(found.machine, ())
    there = [flag for flag in known if flag in found.processor.flags]
    text = " ".join(there) or "none of those that speed graphs up"
    if known and known[0] not in there:
        mend = (
            f"without {known[0]} graphs run several times slower; in a virtual machine, pass it on"
        )
        return note("processor_flags", "its flags", text, mend)
    return ok("processor_flags", "its flags", text)


def _memory(found: Machine) -> Finding:
    total, available = found.memory_total_bytes, found.memory_available_bytes
    text = f"{bytes_text(available)} of {bytes_text(total)} available"
    limit = found.memory_limit_bytes
    if limit is not None and limit < total:
        text += f", limited to {bytes_text(limit)} by its control group"
    if total and 100 * available / total < MEMORY_AVAILABLE_WARNING_PERCENT:
        return problem("memory", "memory", text, "see who uses it: superbrain status, top")
    return ok("memory", "memory", text)


def _swap(found: Machine) -> Finding:
    if not found.swap_total_bytes:
        return ok("swap", "swap", "none")
    used, total = found.swap_used_bytes, found.swap_total_bytes
    text = f"{bytes_text(used)} of {bytes_text(total)} used"
    if 100 * used / total > SWAPPED_PERCENT:
        return note("swap", "swap", text, "a model that is swapped out answers late: add memory")
    return ok("swap", "swap", text)


def _sandbox(found: Machine) -> Finding:
    filtered = "seccomp" if found.system_call_filter else "no seccomp"
    text = f"Landlock version {found.landlock_abi}, {filtered}"
    if found.landlock_abi and found.system_call_filter:
        return ok("sandbox", "sandbox", text)
    if not found.landlock_abi:
        text = f"no Landlock, {filtered}"
    mend = (
        f"workers are held less tightly: use a kernel from {LANDLOCK_SINCE} on with Landlock among "
        "its security modules (lsm=…), and allow it in the container"
    )
    return note("sandbox", "sandbox", text, mend)


def _limits(found: Machine) -> Iterator[Finding]:
    watches, instances = found.inotify_watches, found.inotify_instances
    if watches is None or instances is None:
        yield note("inotify", "inotify", "not to be seen; the inbox is looked at every few seconds")
    elif watches < LEAST_WATCHES or instances < LEAST_INSTANCES:
        text = f"{watches} watches, {instances} instances for each user"
        mend = "sysctl fs.inotify.max_user_instances=128 fs.inotify.max_user_watches=8192"
        yield note("inotify", "inotify", text, mend)
    else:
        yield ok("inotify", "inotify", f"{watches} watches, {instances} instances for each user")
    text = f"{found.descriptors} for each process of this user"
    if found.descriptors < LEAST_DESCRIPTORS:
        mend = f"the service has its own limit; by hand: ulimit -n {LEAST_DESCRIPTORS}"
        yield note("descriptors", "descriptors", text, mend)
    else:
        yield ok("descriptors", "descriptors", text)


def _clock(found: Machine) -> Finding:
    if found.year < EARLIEST_YEAR:
        mend = "set it: signatures are judged by it. timedatectl set-ntp true"
        return problem("clock", "clock", f"it says the year {found.year}", mend)
    if found.clock_synchronised is None:
        return ok("clock", "clock", f"{found.year}; the kernel does not tell who sets it")
    if not found.clock_synchronised:
        mend = "timedatectl set-ntp true, unless this host has no network on purpose"
        return note("clock", "clock", "nothing keeps it right", mend)
    return ok("clock", "clock", "kept right by time synchronisation")


def _service(found: Machine) -> Finding:
    if not found.has_systemd:
        mend = "something else has to start superbraind, and start it again"
        return note("service", "service", "this system was not started by systemd", mend)
    if not found.service:
        mend = "./install.sh installs it, if this is to be more than a trial"
        return note("service", "service", "superbraind is not installed as a service", mend)
    if found.service.startswith("failed"):
        mend = "journalctl -u superbraind says why; then systemctl reset-failed superbraind"
        return problem("service", "service", f"superbraind: {found.service}", mend)
    return ok("service", "service", f"superbraind: {found.service}")


def flags_of_interest(machine: str, flags: Sequence[str]) -> list[str]:
    """Keep the flags that matter for this kind of machine."""
    return [flag for flag in FLAGS.get(machine, ()) if flag in flags]
