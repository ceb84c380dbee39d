"""The file of the inference log: its owner's alone, whole lines, never larger than it may be."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.host.inference_log import InferenceLog


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    before = os.umask(0)
    yield tmp_path / "inference" / "inference.jsonl"
    os.umask(before)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_nobody_else_may_read_it_whatever_the_umask(path: Path) -> None:
    log = InferenceLog(path, 200, 3)
    log.write([{"number": number} for number in range(100)])
    log.close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(list(path.parent.iterdir())) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize("files", [1, 2, 4])
def test_all_files_together_have_a_bound_and_the_newest_lines(path: Path, files: int) -> None:
    log = InferenceLog(path, 1000, files)
    for first in range(0, 1000, 10):
        log.write([{"number": number, "text": "%s 100%"} for number in range(first, first + 10)])
    log.close()
    found = sorted(path.parent.iterdir())
    assert len(found) == files
    assert size(path.parent) <= files * 1000
    lines = [json.loads(line) for file in found for line in file.read_text().splitlines()]
    assert max(line["number"] for line in lines) == 999
    assert all(line["text"] == "%s 100%" for line in lines)


def test_one_that_is_there_is_gone_on_with(path: Path) -> None:
    for number in range(2):
        log = InferenceLog(path, 1000, 2)
        log.write([{"number": number}])
        log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"number": 0},
        {"number": 1},
    ]


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    victim = tmp_path / "victim"
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        InferenceLog(path, 1000, 2).write([{"number": 1}])
    assert not victim.exists()


def test_a_full_disk_is_an_error_of_the_writer_as_often_as_it_tries() -> None:
    log = InferenceLog(Path("/dev/full"), 1000, 2)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            log.write([{"number": 1}])
    log.close()


def test_a_line_that_was_cut_off_is_ended_before_the_next(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"number": 1}\n{"num')
    log = InferenceLog(path, 1000, 2)
    log.write([{"number": 2}])
    log.close()
    assert path.read_text().splitlines()[-1] == '{"number":2}'
    assert len(path.read_text().splitlines()) == 3
