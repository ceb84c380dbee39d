"""Every operation on the disk fails once, fails for good, and is the last one before a SIGKILL.

A row is a scene of tests/support/disk_scenes.py; what must follow is the same for all of them. An
error is typed and says what to do; there is the old content or the new and nothing between; nothing
is left behind once the disk is good again; and it succeeds when it is tried again. Kills are real
ones, of a process of their own.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.bundle.archive import VerifiedBundle
from superbrain.deploy.journal_file import JournalError
from superbrain.domain.errors import StoreError
from tests.support.bundles import make_bundle, sign_key, verified
from tests.support.disk_scenes import SCENES, Report, Scene
from tests.support.faulty_disk import ERRORS, KILL, Fault, failing, killed_at

pytestmark = pytest.mark.fault
MOST_OPERATIONS = 200
FEWEST = {"TakeIn": 20, "Refuse": 4, "Report": 3, "Step": 3}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VerifiedBundle]:
    folder = tmp_path_factory.mktemp("bundle")
    author = sign_key(folder)
    built = make_bundle(folder, author)
    return built.path, verified(built, author)


def test_the_document_has_every_scene() -> None:
    document = (Path(__file__).parents[2] / "docs/faults.md").read_text()
    named = [line.split("|")[1] for line in document.splitlines() if line.startswith("| ")]
    for scene in SCENES:
        assert any(scene.__name__ in line for line in named), scene


class Places:
    """Gives every run of a scene a folder of its own."""

    def __init__(self, at: Path, bundle: tuple[Path, VerifiedBundle]) -> None:
        self._at, self._bundle, self._count = at, bundle, 0

    def set(self, kind: type[Scene]) -> Scene:
        self._count += 1
        folder = self._at / str(self._count)
        folder.mkdir()
        return kind(folder, *self._bundle)


@pytest.fixture
def places(bundle: tuple[Path, VerifiedBundle]) -> Iterator[Places]:
    """Give places in memory where there is such a folder: a real disk takes its time to sync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Places(Path(folder), bundle)


def numbers(scene: Scene) -> Iterator[int]:
    """Give the number of every operation, found out by doing it once."""
    with failing() as operations:
        scene.begin()
        operations.arm(None)
        scene.act()
    count = len(operations.done)
    assert MOST_OPERATIONS > count >= FEWEST.get(type(scene).__name__, 1), operations.done
    return iter(range(1, count + 1))


def act_and_fail(scene: Scene, fault: Fault) -> None:
    """Act while the disk fails: the scene ends with a typed error, or copes with it."""
    with failing() as operations:
        scene.begin()
        operations.arm(fault)
        try:
            scene.act()
        except (StoreError, JournalError) as error:
            assert error.mend, error  # noqa: PT017 - it may also cope
        except OSError:
            assert isinstance(scene, Report)  # its caller says it in the log


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for-good"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", SCENES, ids=lambda kind: kind.__name__)
def test_an_operation_that_fails_leaves_all_or_nothing_and_succeeds_later(
    kind: type[Scene], error: str, lasting: bool, places: Places
) -> None:
    for number in numbers(places.set(kind)):
        scene = places.set(kind)
        act_and_fail(scene, Fault(error, number, lasting))
        assert scene.wrong(done=False) == "", f"operation {number}"
        scene.act()
        scene.mended()
        assert scene.wrong(done=True) == "", f"operation {number}"


@pytest.mark.parametrize("kind", SCENES, ids=lambda kind: kind.__name__)
def test_a_kill_before_an_operation_leaves_all_or_nothing_and_it_succeeds_later(
    kind: type[Scene], places: Places
) -> None:
    for number in numbers(places.set(kind)):
        scene = places.set(kind)
        assert killed_at(number, scene.begin, scene.act), f"{KILL} {number}"
        scene.begin()
        assert scene.wrong(done=False) == "", f"operation {number}"
        with contextlib.suppress(StoreError):
            scene.act()
        assert scene.wrong(done=True) == "", f"operation {number}"
