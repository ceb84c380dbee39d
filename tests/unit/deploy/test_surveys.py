"""What builders have found out is remembered for as long as it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbrain.deploy.surveys import FILE_NAME, KnownHost, Surveys
from superbrain.domain.engine import EngineHost

RUNG = "tensorrt:fp16"
FOUND = KnownHost("outlook", EngineHost("tensorrt", "10.16.1.11", "NVIDIA L4", "8.9"), ["FP16"])


def test_it_is_known_in_this_life_and_in_the_next(tmp_path: Path) -> None:
    surveys = Surveys(tmp_path)
    assert surveys.recall(RUNG, "outlook") is None
    surveys.keep(RUNG, FOUND)
    assert surveys.recall(RUNG, "outlook") == FOUND
    assert Surveys(tmp_path).recall(RUNG, "outlook") == FOUND


def test_another_outlook_or_rung_is_not_known(tmp_path: Path) -> None:
    surveys = Surveys(tmp_path)
    surveys.keep(RUNG, FOUND)
    assert surveys.recall(RUNG, "another") is None
    assert surveys.recall("tensorrt:fp32", "outlook") is None


def test_what_was_doubted_is_forgotten_for_good(tmp_path: Path) -> None:
    surveys = Surveys(tmp_path)
    surveys.keep(RUNG, FOUND)
    surveys.forget(RUNG)
    surveys.forget(RUNG)
    assert surveys.recall(RUNG, "outlook") is None
    assert Surveys(tmp_path).recall(RUNG, "outlook") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"tensorrt:fp16": {"outlook": 1}}'])
def test_a_damaged_memory_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert Surveys(tmp_path).recall(RUNG, "outlook") is None


def test_a_disk_that_refuses_costs_the_memory_only(tmp_path: Path) -> None:
    surveys = Surveys(tmp_path / "nowhere")
    surveys.keep(RUNG, FOUND)
    assert surveys.recall(RUNG, "outlook") == FOUND
