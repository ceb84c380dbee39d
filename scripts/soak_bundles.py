"""Bundles for a soak: good versions of the adder, and bad ones of every kind there is."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.corpus.draft import Draft
from tests.corpus.dropping import model_of
from tests.corpus.every_case import CASES
from tests.support.appliance import Appliance
from tests.support.bundles import make_bundle, sign_key

HARMED = ("damaged", "golden", "text", "short")
#: So that a request waits for as long as a soak lets it, however often its worker is killed.
SERVING = "request_timeout_ms = 120000"


class BundleMaker:
    """Makes bundles, each with a higher version than all before."""

    def __init__(self, appliance: Appliance, drawn: random.Random) -> None:
        self.version = 0
        self._good: set[str] = set()
        self._appliance = appliance
        self._random = drawn
        self._stranger = sign_key(appliance.work / "stranger", "stranger").signing

    def is_good(self, version: str) -> bool:
        """Tell whether a version may serve."""
        return version in self._good

    def good(self) -> Path:
        """Make the next version of the adder."""
        path = self._next()
        self._good.add(f"{self.version}.0.0")
        return path

    def drop_bad(self) -> None:
        """Drop a case of the corpus, or a version of the adder with a fault of its own."""
        if self._random.random() < 0.7:
            self._drop_case()
        else:
            self._drop_harmed(self._random.choice(HARMED))

    def _drop_case(self) -> None:
        case = CASES[self._random.choice(list(CASES))]
        with self._folder() as folder:
            draft = Draft(folder, self._appliance.author.signing, self._stranger, model_of(case))
            case.bend(draft)
            self._move_in(draft.pack(), f"{case.name}.sbb")

    def _drop_harmed(self, kind: str) -> None:
        path = self._next(golden_error=0.5 if kind == "golden" else 0.0)
        data = bytearray(path.read_bytes())
        if kind == "damaged":
            data[-1500] ^= 1
        elif kind == "text":
            data[:] = b"no bundle\n" * 1000
        elif kind == "short":
            del data[len(data) // 2 :]
        self._move_in(data, path.name)
        if kind == "short":  # whoever copied it gave up
            (self._appliance.inbox / path.name).unlink(missing_ok=True)

    def _move_in(self, data: bytes | bytearray, name: str) -> None:
        """Put a whole file into the inbox, and clear what was refused there before."""
        for note in self._appliance.inbox.glob("*.refused*"):
            note.unlink(missing_ok=True)
        beside = self._appliance.inbox / ".coming"
        beside.write_bytes(data)
        beside.rename(self._appliance.inbox / name)

    def _next(self, golden_error: float = 0.0) -> Path:
        self.version += 1
        for made in self._appliance.work.glob("made-*"):
            shutil.rmtree(made)
        return make_bundle(
            Path(tempfile.mkdtemp(prefix="made-", dir=self._appliance.work)),
            self._appliance.author,
            version=f"{self.version}.0.0",
            sequence=self.version,
            constant=float(self.version),
            golden_error=golden_error,
            serving=SERVING,
        ).path

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._appliance.work) as folder:
            yield Path(folder)
