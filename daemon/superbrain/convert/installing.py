"""Putting locked packages into a framework's environment: by uv where it is there, else by pip.

uv takes seconds where pip takes minutes, and is told the places that pip is configured with
(mirrors, folders of wheels). Whatever it cannot do, pip does, from the beginning. Either way a
package has a hash that the lock knows, and none comes along that the lock does not name.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from superbrain.convert.errors import SetupFailed

Progress = Callable[[str], None]
_PACKAGE: Final = re.compile(r"^[a-zA-Z0-9]", re.MULTILINE)
_DOING: Final = re.compile(
    r"^\s*(Collecting|Processing|Downloading|Installing collected)\s*(?:packages: )?(\S*)"
)
_PLACE: Final = re.compile(
    r"^[^=]*?\.(index-url|extra-index-url|find-links)='([^']*)'", re.MULTILINE
)
_INDEX: Final = "https://pypi.org/simple"
_UV_OPTIONS: Final = {"extra-index-url": "--index", "find-links": "--find-links"}


class Lock(NamedTuple):
    """The locked packages of one framework: always these, and it without CUDA or else with it."""

    packages: Path
    cpu: Path
    cuda: Path

    @property
    def digest(self) -> str:
        """What changes when the lock does."""
        texts = [path.read_bytes() for path in self if path.exists()]
        return hashlib.sha256(b"\0".join(texts)).hexdigest()


def install(path: Path, framework: str, lock: Lock, progress: Progress) -> None:
    """Make an environment and put the lock's packages into it.

    Args:
        path: of the environment; an old one is thrown away.
        framework: whose it is.
        lock: what belongs into it.
        progress: is told what is being done.

    Raises:
        SetupFailed: Python cannot make environments, or a package cannot be had.
    """
    if find_spec("uv") is not None:
        try:
            _install_all(path, framework, lock, _Uv(path, progress))
        except SetupFailed as error:
            if error.code != "SETUP_PACKAGES":
                raise
            progress("uv could not; trying with pip")
        else:
            return
    _install_all(path, framework, lock, _Pip(path, progress))


def _install_all(path: Path, framework: str, lock: Lock, installer: _Installer) -> None:
    _make_venv(path, framework, installer)
    installer.install(lock.packages)
    if not lock.cpu.exists():
        return
    try:
        installer.install(lock.cpu)
    except SetupFailed:
        installer.progress(
            "no build without CUDA is to be had here: taking the one with it, which is large"
        )
        installer.install(lock.cuda)


def _make_venv(path: Path, framework: str, installer: _Installer) -> None:
    if path.exists() and any(path.iterdir()) and not (path / "pyvenv.cfg").exists():
        raise SetupFailed(
            f"{path}: expected no folder or an environment, found something else",
            code="SETUP_PLACE",
            mend="Move it away, or choose another place with --environments-folder",
        )
    installer.progress(f"making an environment for {framework} in {path}")
    shutil.rmtree(path, ignore_errors=True)
    command = [sys.executable, "-I", "-m", "venv", *installer.venv_options, str(path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        version = ".".join(platform.python_version_tuple()[:2])
        raise SetupFailed(
            f"{sys.executable} cannot make environments: {_last_line(made.stdout + made.stderr)}",
            code="SETUP_PYTHON",
            mend=f"On Debian: sudo apt-get install python{version}-venv",
        )


class _Installer(ABC):
    """Installs exactly what a lock names into one environment."""

    venv_options: tuple[str, ...] = ()

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path, self.progress = path, progress

    @abstractmethod
    def command(self, lock: Path) -> list[str]:
        """What is started."""

    def install(self, lock: Path) -> None:
        """Install a lock; the child's words are kept in install.log.

        Raises:
            SetupFailed: it could not.
        """
        total, log = len(_PACKAGE.findall(lock.read_text())), self.path / "install.log"
        with (
            log.open("a") as copy,
            subprocess.Popen(
                self.command(lock), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as child,
        ):
            assert child.stdout is not None  # noqa: S101 - it is a pipe
            seen = 0
            for line in child.stdout:
                copy.write(line)
                if found := _DOING.match(line):
                    seen += found[1] in {"Collecting", "Processing"}
                    _tell(found, seen, total, self.progress)
        if child.returncode:
            raise SetupFailed(
                f"the packages of {lock.name} could not be installed: {_reason(log)}",
                code="SETUP_PACKAGES",
                mend=f"{log} says everything; a half-made environment is begun anew",
            )


class _Pip(_Installer):
    """pip of the environment itself; its own configuration (mirrors, proxies) is honoured."""

    def command(self, lock: Path) -> list[str]:
        return [
            *(str(self.path / "bin/python"), "-I", "-m", "pip", "--disable-pip-version-check"),
            *("--no-input", "install", "--require-hashes", "--no-deps", "--no-compile"),
            *("--progress-bar=off", "--only-binary=:all:", "-r", str(lock)),
        ]


class _Uv(_Installer):
    """uv of this program's own environment, with the places that pip is configured with."""

    venv_options = ("--without-pip",)

    def command(self, lock: Path) -> list[str]:
        count = len(_PACKAGE.findall(lock.read_text()))
        self.progress(f"installing up to {count} packages with uv")
        return [
            *(sys.executable, "-I", "-m", "uv", "pip", "install", "--no-config"),
            *("--python", str(self.path / "bin/python"), "--require-hashes", "--no-deps"),
            *("--only-binary", ":all:", "--index-strategy", "unsafe-best-match"),
            *_places(),
            *("-r", str(lock)),
        ]


def _places() -> Iterator[str]:
    """Where pip looks for packages, as options of uv."""
    command = [sys.executable, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    index = os.environ.get("UV_DEFAULT_INDEX", "")
    for key, value in _PLACE.findall(listed):
        if key == "index-url":
            index = index or value
        else:
            for one in dict.fromkeys(value.replace("\\n", " ").split()):
                yield from (_UV_OPTIONS[key], one)
    yield from ("--default-index", index or _INDEX)


def _tell(found: re.Match[str], seen: int, total: int, progress: Progress) -> None:
    if found[1] == "Installing collected":
        progress(f"unpacking {seen} packages")
    else:
        progress(f"{found[1].lower()} {found[2].split('=')[0]}, {seen} of up to {total}")


def _reason(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if line.startswith("ERROR")]
    return lines[-1].removeprefix("ERROR: ") if lines else _last_line(log.read_text())


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
