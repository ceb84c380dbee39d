"""What a support bundle tells about the host: versions, disks, memory, processes, permissions."""

from __future__ import annotations

import grp
import importlib.metadata
import itertools
import os
import platform
import pwd
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

import superbrain
from superbrain.app.config import Config
from superbrain.deploy.journal_file import SCHEMA_VERSION

MAX_ENTRIES: Final = 2000
_OS_RELEASE: Final = Path("/etc/os-release")


def versions() -> dict[str, Any]:
    """What runs here: superbrain, Python, packages, kernel, system."""
    packages = {
        found.metadata["Name"]: found.version for found in importlib.metadata.distributions()
    }
    return {
        "superbrain": superbrain.__version__,
        "journal_schema": SCHEMA_VERSION,
        "python": sys.version,
        "executable": sys.executable,
        "kernel": " ".join(os.uname()[i] for i in (0, 2, 3, 4)),
        "libc": " ".join(platform.libc_ver()),
        "os_release": _os_release(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def host() -> dict[str, Any]:
    """Memory, load, processors, disks, and superbrain's own processes."""
    return {
        "memory": psutil.virtual_memory()._asdict(),
        "swap": psutil.swap_memory()._asdict(),
        "load": os.getloadavg(),
        "processors": os.cpu_count(),
        "may_use": len(os.sched_getaffinity(0)),
        "booted_s_ago": round(time.time() - psutil.boot_time()),
        "pressure": {
            name: _text(Path("/proc/pressure") / name) for name in ("cpu", "memory", "io")
        },
        "limits_of_this_command": _text(Path("/proc/self/limits")),
    }


def disks(config: Config) -> dict[str, Any]:
    """Room and inodes where the folders lie."""
    return {name: _disk(path) for name, path in folders(config).items()}


def processes() -> list[dict[str, Any]]:
    """The processes of superbrain, by their programs."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if not any("superbrain" in word for word in words[:4]):
                continue
            with process.oneshot():
                found.append(
                    {
                        "pid": process.pid,
                        "parent": process.ppid(),
                        "user": process.username(),
                        "status": process.status(),
                        "command": [word for word in words if word],
                        "rss_bytes": process.memory_info().rss,
                        "threads": process.num_threads(),
                        "started": round(process.create_time()),
                    }
                )
        except psutil.Error:
            continue  # it ended, or is somebody else's
    return found


def sockets(config: Config) -> str:
    """Who listens: superbrain's Unix sockets, and all TCP ports, as the kernel lists them."""
    runtime = config.paths.runtime
    unix = [line for line in _text(Path("/proc/net/unix")).splitlines() if runtime in line]
    tcp = [_text(Path("/proc/net") / name) for name in ("tcp", "tcp6")]
    return "\n".join([*unix, "", *tcp])


def permissions(config: Config) -> str:
    """Every entry of every folder: mode, owner, group, size, time, name."""
    lines: list[str] = []
    for name, path in folders(config).items():
        lines.append(f"# {name}")
        lines += [_entry(parent) for parent in reversed([path, *path.parents])]
        entries = itertools.islice(_below(path), MAX_ENTRIES)
        lines += [_entry(entry) for entry in entries]
        lines.append("")
    return "\n".join(lines)


def folders(config: Config) -> dict[str, Path]:
    """The folders of this host."""
    return {
        "inbox": config.inbox_path,
        "state": config.journal_path.parent,
        "runtime": Path(config.paths.runtime),
        "trust": config.trust_path,
        "tcp": Path(config.tcp.secret_key).parent,
    }


def _below(folder: Path) -> Iterator[Path]:
    """What is in a folder and those below it; what cannot be listed is left out."""
    for parent, names, files in os.walk(folder):
        names.sort()
        yield from (Path(parent) / name for name in (*names, *sorted(files)))


def _entry(path: Path) -> str:
    try:
        found = path.lstat()
    except OSError as error:
        return f"?  {path}  {error.strerror}"
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.st_mtime))
    owner, group = _name(pwd.getpwuid, found.st_uid), _name(grp.getgrgid, found.st_gid)
    mode = f"{stat.filemode(found.st_mode)} {stat.S_IMODE(found.st_mode):04o}"
    return f"{mode} {owner:12} {group:12} {found.st_size:>12} {at} {path}"


def _name(ask: Any, number: int) -> str:  # noqa: ANN401 - either of two databases
    try:
        return str(ask(number)[0])
    except KeyError:
        return str(number)


def _disk(path: Path) -> dict[str, Any]:
    place = next(found for found in (path, *path.parents) if found.exists())
    try:
        found = os.statvfs(place)
    except OSError as error:
        return {"at": str(place), "error": error.strerror}
    return {
        "at": str(place),
        "total_bytes": found.f_blocks * found.f_frsize,
        "free_bytes": found.f_bavail * found.f_frsize,
        "free_inodes": found.f_favail,
        "read_only": bool(found.f_flag & os.ST_RDONLY),
    }


def _os_release() -> dict[str, str]:
    lines = (line.partition("=") for line in _text(_OS_RELEASE).splitlines() if "=" in line)
    return {name: value.strip('"') for name, _, value in lines}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}"
