"""The metrics file: whole, readable for another user, and no harm when it cannot be written."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from superbrain.app.metrics import Metrics
from superbrain.domain.health import Health
from tests.support.reports import NOON, sample_health


def test_the_file_is_readable_for_everybody_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "superbrain.prom"
    before = os.umask(0o077)
    try:
        Metrics(path).publish(sample_health())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(text_string_to_metric_families(path.read_text()))


def test_it_is_replaced_at_every_report_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "superbrain.prom"
    metrics = Metrics(path)
    metrics.publish(sample_health())
    first = path.stat().st_ino
    metrics.publish(msgspec.structs.replace(sample_health(), ready=False))
    assert path.stat().st_ino != first
    assert "superbrain_ready 0" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_a_problem_until_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(tmp_path / "later" / "superbrain.prom")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            metrics.publish(sample_health())
    (problem,) = metrics.problems()
    assert (problem.severity, problem.subject) == ("warning", "metrics")
    assert "later/superbrain.prom cannot be written: No such file" in problem.message
    assert len(caplog.records) == 1, "said once"
    (tmp_path / "later").mkdir()
    metrics.publish(sample_health())
    assert not metrics.problems()


def test_it_is_gone_when_the_daemon_stops(tmp_path: Path) -> None:
    path = tmp_path / "superbrain.prom"
    metrics = Metrics(path)
    metrics.withdraw()
    metrics.publish(sample_health())
    metrics.withdraw()
    assert not path.exists()


def test_without_a_file_the_text_is_kept_all_the_same() -> None:
    metrics = Metrics(None)
    assert metrics.age_s == float("inf")
    metrics.publish(sample_health(at=NOON))
    assert f"superbrain_report_timestamp_seconds {NOON.timestamp():.0f}\n" in metrics.text.decode()
    assert metrics.age_s < 60


def test_without_a_file_the_text_is_made_when_asked_for_and_once_for_each_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Health] = []

    def text(health: Health) -> str:
        made.append(health)
        return f"{len(made)}"

    monkeypatch.setattr("superbrain.domain.metrics.text", text)
    metrics = Metrics(None)
    assert metrics.text == b""
    for _ in range(3):
        metrics.publish(sample_health())
    assert not made
    assert [metrics.text for _ in range(3)] == [b"1"] * 3
    metrics.publish(sample_health())
    assert metrics.text == b"2"
