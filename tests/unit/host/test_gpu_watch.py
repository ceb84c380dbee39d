"""Asking a driver that may never answer."""

from __future__ import annotations

import threading

import pytest

from superbrain.domain.health import GpuFacts
from superbrain.host import gpu_watch
from superbrain.host.gpu_watch import GpuWatch

PATIENCE_S = 30.0


def test_what_was_said_last_stays_while_the_driver_is_silent() -> None:
    answer, asked = threading.Event(), []
    answer.set()

    def read() -> list[GpuFacts]:
        asked.append(1)
        answer.wait(PATIENCE_S)
        return [GpuFacts(len(asked), "L4")]

    watch = GpuWatch(read)
    watch.look(PATIENCE_S)
    assert (watch.facts[0].index, watch.silent_s) == (1, 0.0)
    answer.clear()
    watch.look()
    watch.look()
    assert (watch.facts[0].index, len(asked)) == (1, 2), "one question is open, no more"
    assert watch.silent_s > 0
    answer.set()
    watch.look(PATIENCE_S)
    assert (watch.facts[0].index, watch.silent_s) == (2, 0.0)


def test_a_host_without_gpus_is_asked_seldom_but_whoever_waits_gets_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    found: list[GpuFacts] = []

    def read() -> list[GpuFacts]:
        asked.append(1)
        return found

    watch = GpuWatch(read)
    watch.look(PATIENCE_S)
    for _ in range(10):
        watch.look()
    assert len(asked) == 1
    watch.look(PATIENCE_S)
    assert len(asked) == 2
    found.append(GpuFacts(0, "L4"))
    monkeypatch.setattr(gpu_watch, "NONE_AGAIN_S", 0.0)
    watch.look()
    watch.look(PATIENCE_S)
    monkeypatch.undo()
    before = len(asked)
    watch.look()
    watch.look(PATIENCE_S)
    assert len(asked) > before, "one that is there is asked at every look"
