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
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from superbrain.convert.errors import SetupFailed

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
_PACKAGE = re.compile(r"^[a-zA-Z0-9]", re.MULTILINE)
_DOING = re.compile(
    r"^\s*(Collecting|Processing|Downloading|Installing collected)\s*(?:packages: )?(\S*)"
)

State = Literal["ready", "stale", "absent"]
Progress = Callable[[str], None]


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
        mend=f"Make it, once: superbrain convert --setup {framework}",
    )


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
            _make_venv(path, framework, progress)
            _install(path, lock.packages, progress)
            if lock.cpu.exists():
                _install_smaller(path, lock, progress)
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


def _make_venv(path: Path, framework: str, progress: Progress) -> None:
    if path.exists() and any(path.iterdir()) and not (path / "pyvenv.cfg").exists():
        raise SetupFailed(
            f"{path}: expected no folder or an environment, found something else",
            code="SETUP_PLACE",
            mend="Move it away, or choose another place with --environments-folder",
        )
    progress(f"making an environment for {framework} in {path}")
    shutil.rmtree(path, ignore_errors=True)
    command = [sys.executable, "-I", "-m", "venv", str(path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        version = ".".join(platform.python_version_tuple()[:2])
        raise SetupFailed(
            f"{sys.executable} cannot make environments: {_last_line(made.stdout + made.stderr)}",
            code="SETUP_PYTHON",
            mend=f"On Debian: sudo apt-get install python{version}-venv",
        )


def _install(path: Path, lock: Path, progress: Progress) -> None:
    """Install exactly what a lock names; pip's own configuration (mirrors, proxies) is honoured."""
    total = len(_PACKAGE.findall(lock.read_text()))
    log = path / "install.log"
    command = [str(path / "bin/python"), "-I", "-m", "pip", "--disable-pip-version-check"]
    command += ["--no-input", "install", "--require-hashes", "--no-deps", "--no-compile"]
    command += ["--progress-bar=off", "--only-binary=:all:", "-r", str(lock)]
    with (
        log.open("a") as copy,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child,
    ):
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        seen = 0
        for line in child.stdout:
            copy.write(line)
            if found := _DOING.match(line):
                seen += found[1] in {"Collecting", "Processing"}
                _tell(found, seen, total, progress)
    if child.returncode:
        raise SetupFailed(
            f"the packages of {lock.name} could not be installed: {_reason(log)}",
            code="SETUP_PACKAGES",
            mend=f"{log} says everything; a half-made environment is begun anew",
        )


def _tell(found: re.Match[str], seen: int, total: int, progress: Progress) -> None:
    if found[1] == "Installing collected":
        progress(f"unpacking {seen} packages")
    else:
        progress(f"{found[1].lower()} {found[2].split('=')[0]}, {seen} of up to {total}")


def _install_smaller(path: Path, lock: Lock, progress: Progress) -> None:
    """Install the build without CUDA where pip finds one, else the one with it."""
    try:
        _install(path, lock.cpu, progress)
    except SetupFailed:
        progress("no build without CUDA is to be had here: taking the one with it, which is large")
        _install(path, lock.cuda, progress)


def _pinned(lock: Path) -> dict[str, str]:
    if not lock.exists():
        return {}
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


def _size_of(path: Path) -> int:
    return sum(one.lstat().st_size for one in path.rglob("*") if not one.is_dir())


def _reason(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if line.startswith("ERROR")]
    return lines[-1].removeprefix("ERROR: ") if lines else _last_line(log.read_text())


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
