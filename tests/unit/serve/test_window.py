"""How many requests a worker wants outstanding: half a millisecond of work, within limits."""

from __future__ import annotations

import pytest

from superbrain.serve.worker_loop import window_for


@pytest.mark.parametrize(
    ("execution_ms", "window"),
    [(0.0, 2), (100.0, 2), (0.5, 2), (0.25, 2), (0.1, 5), (0.05, 10), (0.001, 32)],
)
def test_the_faster_a_model_the_more_requests_travel_together(
    execution_ms: float, window: int
) -> None:
    assert window_for(execution_ms) == window
