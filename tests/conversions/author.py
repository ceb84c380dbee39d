"""An author who types `superbrain convert` and what follows, up to a daemon that answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from superbrain.bundle.folder import BuiltBundle, build, read_folder
from superbrain.domain.golden import compare
from tests.support.appliance import Appliance
from tests.support.walks import walk

MAKERS = Path(__file__).parent / "makers"
PLACE = Path(os.environ.get("SUPERBRAIN_ENVIRONMENTS", "build/environments")).resolve()
PATIENCE_S = 600


class Author:
    """Types commands in `folder`."""

    def __init__(self, folder: Path, appliance: Appliance) -> None:
        self.folder, self.appliance = folder, appliance

    def convert(self, model: str, *words: str, where: Path | None = None) -> tuple[int, Any]:
        """Run `superbrain convert … --json`; gives exit code and what it printed."""
        command = [sys.executable, "-m", "superbrain.cli.main", "convert", model, *words, "--json"]
        ended = subprocess.run(
            [*command, "--environments-folder", str(PLACE)],
            cwd=where or self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert ended.stdout, ended.stderr
        return ended.returncode, json.loads(ended.stdout)

    def converted(self, name: str, model: str, *words: str, where: Path) -> Path:
        """Convert into a bundle folder called `name`."""
        folder = self.folder / name
        code, said = self.convert(model, *words, "--output", str(folder), where=where)
        assert code == 0, said
        return folder

    def serve(self, folder: Path) -> None:
        """Build the bundle, drop it into the inbox, wait until it serves."""
        built = self.drop(folder)
        self.appliance.wait_live(built.manifest.name, built.manifest.version)

    def drop(self, folder: Path) -> BuiltBundle:
        """Build the bundle and drop it into the inbox."""
        built = build(folder, [self.appliance.author.signing], self.folder)
        self.appliance.drop(built)
        return built

    def walk(self, page: str, framework: str) -> str:
        """Type a page of docs/ as it is written; what it printed."""
        folder = self.folder / "walk"
        folder.mkdir()
        python = str(PLACE / framework / "bin/python")
        return walk(folder, page, python, PLACE, self.appliance)

    def assert_answers(self, folder: Path, asks: Path, names: dict[str, str] | None = None) -> None:
        """Ask the daemon what the framework was asked; hold it to the bundle's own tolerances.

        Args:
            folder: of the bundle.
            asks: the maker's folder.
            names: of outputs that the graph calls otherwise than the maker.
        """
        manifest = read_folder(folder)
        asked = 0
        with self.appliance.client() as client:
            for given, expected in questions(asks):
                answer = client.infer(manifest.name, given)
                for name, wanted in expected.items():
                    output = (names or {}).get(name, name)
                    found = np.asarray(answer[output])
                    tolerance = manifest.golden.tolerances[output]
                    figures = compare("", output, "", as_answered(wanted, found), found, tolerance)
                    assert figures.passed, figures.reason
                asked += 1
        assert asked >= 3


def make(framework: str, folder: Path) -> Path:
    """Have a framework make its models in `folder`, with its environment's Python."""
    folder.mkdir(parents=True, exist_ok=True)
    python = PLACE / framework / "bin/python"
    command = [str(python), str(MAKERS / f"{framework}_maker.py"), str(folder)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    made = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | quiet
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return folder


def questions(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every question of a maker with the framework's own answer."""
    for place in sorted((folder / "asks").iterdir()):
        parts = [
            {path.stem: np.load(path) for path in sorted((place / part).iterdir())}
            for part in ("in", "out")
        ]
        yield {name: as_sent(array) for name, array in parts[0].items()}, parts[1]


def as_sent(array: Any) -> Any:  # noqa: ANN401 - any array
    """Texts as a client sends them."""
    if array.dtype.kind != "U":
        return array
    return np.array([text.encode() for text in array.reshape(-1)], object).reshape(array.shape)


def as_answered(wanted: Any, found: Any) -> Any:  # noqa: ANN401 - any array
    """The framework's answer in the datatype of the daemon's."""
    return as_sent(wanted) if wanted.dtype.kind == "U" else wanted.astype(found.dtype)
