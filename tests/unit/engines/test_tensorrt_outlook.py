"""What a builder's look at a host depends on: each part of it changes the word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from superbrain.engines.tensorrt_outlook import outlook

MODULE = "a_library_of_engines"


class Place:
    """A host's files, made up."""

    def __init__(self, folder: Path) -> None:
        self.driver = folder / "driver"
        self.boot = folder / "boot_id"
        self.library = folder / "site-packages" / MODULE / "__init__.py"
        self.write(self.library, "")
        self.write(self.driver / "version", "Kernel Module 580.65.06")
        self.write(self.driver / "gpus" / "0000:01:00.0" / "information", "Model: NVIDIA L4")
        self.write(self.boot, "one")

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def word(self) -> str:
        return outlook([MODULE, "not_there_either"], self.driver, self.boot)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    return Place(tmp_path)


def test_the_same_host_has_the_same_word(place: Place) -> None:
    assert place.word() == place.word()


def another_driver(place: Place) -> None:
    place.write(place.driver / "version", "Kernel Module 590.10")


def no_driver(place: Place) -> None:
    (place.driver / "version").unlink()


def another_gpu(place: Place) -> None:
    place.write(place.driver / "gpus" / "0000:01:00.0" / "information", "Model: NVIDIA L40")


def one_more_gpu(place: Place) -> None:
    place.write(place.driver / "gpus" / "0000:02:00.0" / "information", "Model: NVIDIA L4")


def another_library(place: Place) -> None:
    place.write(place.library, "__version__ = '2'")


def no_library(place: Place) -> None:
    place.library.unlink()
    place.library.parent.rmdir()


@pytest.mark.parametrize(
    "change", [another_driver, no_driver, another_gpu, one_more_gpu, another_library, no_library]
)
def test_a_host_that_has_changed_has_another(place: Place, change: Callable[[Place], None]) -> None:
    before = place.word()
    change(place)
    assert place.word() != before


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"])
def test_so_has_one_with_another_environment(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = place.word()
    monkeypatch.setenv(name, "another")
    assert place.word() != before


def test_another_start_of_the_host_counts_only_where_the_driver_tells_of_no_gpu(
    place: Place,
) -> None:
    before = place.word()
    place.write(place.boot, "two")
    assert place.word() == before
    (place.driver / "gpus" / "0000:01:00.0" / "information").unlink()
    silent = place.word()
    place.write(place.boot, "three")
    assert place.word() != silent
