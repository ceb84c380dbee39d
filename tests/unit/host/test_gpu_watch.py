"""Asking a driver that may never answer."""

from __future__ import annotations

import threading

from superbrain.domain.health import GpuFacts
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
