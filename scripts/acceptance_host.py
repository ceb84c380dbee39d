"""A throw-away Debian with a real systemd as process 1, in a container that leaves nothing behind.

    with Host(base, work, {wheelhouse: "/wheelhouse"}) as host:
        host.run("systemctl", "is-system-running")
        host.run("superbrain", "models", user="alice")

Must run as root in a mount namespace of its own (`unshare --mount --propagation private`): all
mounts made here end with it. `base` is never written; what the container changes lies in `work`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

CGROUPS = Path("/sys/fs/cgroup")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_PATIENCE_S = 90.0
LOOK_AGAIN_S = 0.1


class NotBootable(Exception):
    """This machine cannot run the container; the text says why."""


class CommandFailed(AssertionError):
    """A command in the container ended otherwise than it should have."""


class Host:
    """The container.

    Args:
        base: a Debian made by debootstrap.
        work: an empty folder for what changes.
        binds: folders of this machine, and where they are seen (read only) in the container.
    """

    def __init__(self, base: Path, work: Path, binds: Mapping[Path, str]) -> None:
        self.root = work / "root"
        self._base = base
        self._work = work
        self._binds = binds
        self._cgroup = CGROUPS / f"superbrain-acceptance-{os.getpid()}"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0

    def __enter__(self) -> Self:
        try:
            self._mount()
            self._boot()
        except (subprocess.CalledProcessError, OSError) as error:
            self.close()
            raise NotBootable(f"the container cannot be made: {error}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- use ----------------------------------------------------------------------------------

    def run(
        self, *command: str, user: str = "root", status: int | None = 0, timeout_s: float = 120.0
    ) -> str:
        """Run a command in the container; what it printed, both streams.

        Raises:
            CommandFailed: its exit status is not `status` (None: any will do).
        """
        result = subprocess.run(
            self.entering(command, user),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        if status is not None and result.returncode != status:
            typed = " ".join(command)
            raise CommandFailed(
                f"{user}: {typed}\nexpected exit code {status}, found {result.returncode}:\n"
                f"{result.stdout[-4000:]}"
            )
        return result.stdout.strip()

    def entering(self, command: tuple[str, ...], user: str) -> list[str]:
        """Give the command line that runs `command` in the container."""
        home = "/root" if user == "root" else f"/home/{user}"
        entering = ["nsenter", "-t", str(self.leader), "-a", "env", "-i", f"PATH={PATH}"]
        entering += [f"HOME={home}", "LANG=C.UTF-8", "SYSTEMD_PAGER="]
        if user != "root":
            entering += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*entering, *command]

    # --- life ---------------------------------------------------------------------------------

    def _mount(self) -> None:
        for name in ("upper", "overlay", "root"):
            (self._work / name).mkdir(parents=True)
        layers = f"lowerdir={self._base},upperdir={self._work}/upper,workdir={self._work}/overlay"
        _call("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        _call("umount", "-R", "-l", str(CGROUPS))
        _call("mount", "-t", "cgroup2", "none", str(CGROUPS))
        Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
        _call("mount", "-t", "tmpfs", "tmpfs", "/run/systemd/nspawn")
        self._cgroup.mkdir()

    def _boot(self) -> None:
        binds = [f"--bind-ro={source}:{target}" for source, target in self._binds.items()]
        command = [
            *("systemd-nspawn", "-D", str(self.root), "--boot", "--register=no", "--keep-unit"),
            *("--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no"),
            *("--console=pipe", "--system-call-filter=bpf", "--capability=CAP_BPF", *binds),
        ]
        enter = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        with (self._work / "console.log").open("wb") as console:
            self._nspawn = subprocess.Popen(
                ["sh", "-c", enter, str(self._cgroup), *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + BOOT_PATIENCE_S
        while time.monotonic() < end and self._nspawn.poll() is None:
            if self._has_booted():
                return
            time.sleep(LOOK_AGAIN_S)
        words = (self._work / "console.log").read_text(errors="replace")[-1500:]
        raise NotBootable(f"the container did not boot:\n{words}")

    def _has_booted(self) -> bool:
        assert self._nspawn is not None  # noqa: S101 - started before
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        self.leader = int((children.read_text().split() or ["0"])[0])
        if not self.leader:
            return False
        state = self.run("systemctl", "is-system-running", status=None)
        return state.splitlines()[-1:] in (["running"], ["degraded"])

    def close(self) -> None:
        """End every process of the container and undo the mounts."""
        if self._nspawn is not None:
            self._nspawn.terminate()
        if self._cgroup.is_dir():
            (self._cgroup / "cgroup.kill").write_text("1")
            if self._nspawn is not None:
                self._nspawn.wait()
            _remove_cgroup(self._cgroup)
        subprocess.run(["umount", "-l", str(self.root)], check=False, capture_output=True)


def _remove_cgroup(cgroup: Path) -> None:
    """Remove a cgroup and those below it, as soon as the kernel has buried their processes."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if not cgroup.exists():
            return
        time.sleep(LOOK_AGAIN_S)


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
