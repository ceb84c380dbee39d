"""What a builder's look at this host depends on, in one word, found without importing anything.

A builder says which library and GPU there are, so that the daemon can make an engine's key. That
holds until the library or the driver is replaced, GPUs come, go or are hidden, or other libraries
would be loaded. `outlook` changes with each of these; as long as it is the same, there is no need
to start a builder only to hear the same again. Should it miss something, a worker meets an engine
that its library refuses or that does not prove, and the next look is a builder's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_DRIVER: Final = Path("/proc/driver/nvidia")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_VARIABLES: Final = ("CUDA_", "NVIDIA_", "LD_", "TRT_", "SUPERBRAIN_DEVICE")


def outlook(modules: Iterable[str], driver: Path = _DRIVER, boot: Path = _BOOT) -> str:
    """Give the word.

    Args:
        modules: the names by which the library may be imported.
        driver: what the kernel module tells of itself and its GPUs.
        boot: tells one start of the host from another, for hosts whose driver tells nothing.
    """
    found = hashlib.sha256()
    for line in (*_libraries(modules), *_gpus(driver, boot), *_variables(os.environ)):
        found.update(line.encode(errors="replace") + b"\0")
    return found.hexdigest()


def _libraries(modules: Iterable[str]) -> Iterator[str]:
    """Where each module would be imported from, and when it was put there."""
    importlib.invalidate_caches()
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            yield f"no {name}"
            continue
        try:
            found = Path(spec.origin).stat()
        except OSError as error:
            yield f"{name} {spec.origin} {error.errno}"
        else:
            yield f"{name} {spec.origin} {found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _gpus(driver: Path, boot: Path) -> Iterator[str]:
    """The driver's release and its GPUs; where it tells of none, which start of the host it is."""
    files = [driver / "version", *sorted(driver.glob("gpus/*/information"))]
    told = [_text(path) for path in files]
    yield from told
    if len(files) == 1 or not all(told):
        yield _text(boot)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _variables(environment: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environment):
        if name.startswith(_VARIABLES):
            yield f"{name}={environment[name]}"
