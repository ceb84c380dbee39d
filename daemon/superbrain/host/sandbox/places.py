"""Which places of the file system a worker needs: read, write, and what CUDA takes beyond that.

Read: the bundle, the interpreter with its packages, the system's libraries, and what libraries ask
about processor and memory. Written: the scratch folder. Trust, journal, inbox, health and sockets,
and every other bundle of the store, are simply not among them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from superbrain.host.sandbox.landlock import DEVICE, OWN, READ, Grant, Right

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SYSTEM: Final = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/share",
    "/usr/local/lib",
    "/usr/local/share",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
    "/dev/urandom",
    "/dev/random",
    # What numpy, OpenBLAS, ONNX Runtime and CUDA ask about processor, memory and devices.
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys/vm",
    "/proc/sys/kernel",
    "/sys/devices",
    "/sys/class",
    "/sys/bus",
    "/sys/module",
    "/sys/fs/cgroup",
)

# For CUDA; docs/gpu.md says on which GPUs it was tried. `nvidia-modprobe` cannot help from in here:
# the device files must be there beforehand. Containers have the driver in /usr/local/nvidia.
_GPU_READ: Final = (
    "/proc/driver/nvidia",
    "/proc/devices",
    "/proc/modules",
    "/usr/local/cuda",
    "/usr/local/nvidia",
)
_GPU_DEVICES: Final = ("nvidia*", "nvidia-caps/*", "nvhost*", "nvmap", "nvgpu*", "dri/render*")


def grants(
    bundle: Path, scratch: Path | None, *, gpu: bool, readable: Sequence[Path] = ()
) -> list[Grant]:
    """Give every place that a worker needs, and what it may do there."""
    places = [
        Grant(path, READ) for path in (bundle, *readable, *_interpreter(), *map(Path, _SYSTEM))
    ]
    places.append(Grant(Path("/dev/null"), Right.READ_FILE | Right.WRITE_FILE))
    places.append(Grant(_self(), READ))
    if scratch is not None:
        places.append(Grant(scratch, OWN))
    if gpu:
        places += _for_gpu()
    return places


def _self() -> Path:
    """The process's own folder by its number: the link `self` lies outside of it."""
    return Path("/proc/self").resolve()


def _interpreter() -> Iterator[Path]:
    """The interpreter's folders and every folder it imports from, this package included.

    An installed interpreter lives in /usr, which is too wide: its libraries are in `sys.path`.
    """
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        if prefix not in {"/", "/usr", "/usr/local"}:
            yield Path(prefix)
    for entry in sys.path:
        if entry and Path(entry).is_absolute():
            yield Path(entry)


def _for_gpu() -> Iterator[Grant]:
    yield from (Grant(Path(path), READ) for path in (*_GPU_READ, *_named_to_the_loader()))
    for pattern in _GPU_DEVICES:
        yield from (Grant(path, DEVICE) for path in sorted(Path("/dev").glob(pattern)))
    # CUDA names its threads through /proc/PID/task/TID/comm, a file that it empties first, and does
    # not start when it may not. All below is this process's own.
    yield Grant(_self(), READ | Right.WRITE_FILE | Right.TRUNCATE)


def _named_to_the_loader() -> Iterator[str]:
    """Folders that $LD_LIBRARY_PATH names: the operator says that libraries are there."""
    for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        path = Path(entry)
        if path.is_absolute() and path.resolve() != Path("/"):
            yield entry
