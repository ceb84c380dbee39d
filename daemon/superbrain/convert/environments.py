"""The environments that frameworks live in: where they lie, how they stand, how they are made.

One folder for each framework below one place:

    ~/.local/share/superbrain/environments/torch/                   or $XDG_DATA_HOME/superbrain/…
    ~/.local/share/superbrain/environments/torch/superbrain.json    written last: what is in it

Packages come from a lock with hashes that this package ships (`locks/`), each named by itself, so
that nothing comes along which the lock does not know. An environment whose lock or Python has
changed since is stale and is made again.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from superbrain.convert.errors import SetupFailed
from superbrain.convert.installing import Lock, Progress, install

FRAMEWORKS = ("torch", "tensorflow", "paddle", "sklearn", "onnx")
HOLDS = {
    "torch": "PyTorch: .pt2, module:function with weights, TorchScript",
    "tensorflow": "TensorFlow and Keras: SavedModel, .pb, .h5, .keras",
    "paddle": "PaddlePaddle: inference folders",
    "sklearn": "scikit-learn, XGBoost, LightGBM: joblib and pickle",
    "onnx": "ONNX files themselves",
}
PLACE_VARIABLE = "SUPERBRAIN_ENVIRONMENTS"
_STAMP = "superbrain.json"
_LOCKS = Path(__file__).parent / "locks"
State = Literal["ready", "stale", "absent"]


class Stamp(msgspec.Struct, frozen=True):
    """What an environment was made of."""

    framework: str
    lock: str
    python: str
    size_bytes: int


class Environment(msgspec.Struct, frozen=True):
    """One framework's environment, there or not."""

    framework: str
    holds: str
    state: State
    path: str
    python: str = ""
    size_bytes: int = 0
    packages: dict[str, str] = {}

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return Path(self.path) / "bin/python"

    @property
    def packages_path(self) -> str:
        """Where its packages lie."""
        major, minor, _ = self.python.split(".", 2)
        return str(Path(self.path) / f"lib/python{major}.{minor}/site-packages")


def default_place() -> Path:
    """The folder of all environments: `$SUPERBRAIN_ENVIRONMENTS`, else the user's data folder."""
    if named := os.environ.get(PLACE_VARIABLE):
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(data) / "superbrain/environments"


def lock_of(framework: str) -> Lock:
    """The lock files of a framework.

    Raises:
        SetupFailed: it is none that can be converted from.
    """
    if framework not in FRAMEWORKS:
        raise SetupFailed(
            f"expected one of {', '.join(FRAMEWORKS)}, found {framework!r}", code="NO_FRAMEWORK"
        )
    return Lock(*(_LOCKS / f"{framework}{part}.txt" for part in ("", "-cpu", "-cuda")))


def look(place: Path, framework: str) -> Environment:
    """Say how it stands with one environment; nothing is started."""
    lock, path = lock_of(framework), place / framework
    stamp = _read_stamp(path)
    if stamp is None:
        return Environment(framework, HOLDS[framework], "absent", str(path))
    fresh = stamp.lock == lock.digest and stamp.python == platform.python_version()
    return Environment(
        framework,
        HOLDS[framework],
        "ready" if fresh and (path / "bin/python").exists() else "stale",
        str(path),
        stamp.python,
        stamp.size_bytes,
        {name: version for part in lock for name, version in _pinned(part).items()},
    )


def require(place: Path, framework: str) -> Environment:
    """Give an environment that is ready.

    Raises:
        SetupFailed: it is absent or stale.
    """
    found = look(place, framework)
    if found.state == "ready":
        return found
    made = "none" if found.state == "absent" else "one of other versions"
    raise SetupFailed(
        f"expected an environment for {framework} in {place}, found {made}",
        code="NO_ENVIRONMENT",
        mend=f"Make it, once: {setup_command(place, framework)}",
    )


def setup_command(place: Path, framework: str) -> str:
    """Spell the command that makes it there."""
    elsewhere = f" --environments-folder {shlex.quote(str(place))}"
    there = "" if place == default_place() else elsewhere
    return f"superbrain convert --setup {framework}{there}"


def set_up(place: Path, framework: str, progress: Progress) -> Environment:
    """Make an environment, or leave it alone when it is ready.

    Args:
        place: the folder of all environments.
        framework: one of `FRAMEWORKS`.
        progress: is told what is being done.

    Raises:
        SetupFailed: Python cannot make environments, or a package cannot be had.
    """
    lock, path = lock_of(framework), place / framework
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place / f".{framework}.lock", progress):
        if look(place, framework).state != "ready":
            (path / _STAMP).unlink(missing_ok=True)
            install(path, framework, lock, progress)
            stamp = Stamp(framework, lock.digest, platform.python_version(), _size_of(path))
            (path / _STAMP).write_bytes(msgspec.json.encode(stamp))
    return look(place, framework)


def remove(place: Path, framework: str) -> bool:
    """Throw an environment away; False when there was none."""
    lock_of(framework)
    path = place / framework
    if not (path / "pyvenv.cfg").exists():
        return False
    shutil.rmtree(path)
    return True


def _read_stamp(path: Path) -> Stamp | None:
    try:
        return msgspec.json.decode((path / _STAMP).read_bytes(), type=Stamp)
    except (OSError, msgspec.DecodeError):
        return None


@contextmanager
def _alone(path: Path, progress: Progress) -> Iterator[None]:
    """Hold a lock, so that two commands do not make the same environment."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another command that makes the same environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pinned(lock: Path) -> dict[str, str]:
    if not lock.exists():
        return {}
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


def _size_of(path: Path) -> int:
    return sum(one.lstat().st_size for one in path.rglob("*") if not one.is_dir())
