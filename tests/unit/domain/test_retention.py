"""What may be forgotten, and what never."""

from __future__ import annotations

from typing import Any

from superbrain.domain.deployment import Deployment, State
from superbrain.domain.retention import remembered, retained


def row(number: int, state: State = State.RETIRED, **others: Any) -> Deployment:  # noqa: ANN401
    made: dict[str, Any] = {"version": f"{number}.0.0", "sequence": number, "ladder": ("one",)}
    made |= {"id": number, "name": "ocr", "digest": f"d{number}", "state": state}
    return Deployment(**(made | others))


def test_what_serves_and_what_served_before_are_kept() -> None:
    rows = [row(5), row(4, State.LIVE, predecessor=2), row(3), row(2), row(1)]
    assert retained({"ocr": rows}, {"ocr": 4}) == {"d5", "d4", "d2"}


def test_what_is_under_way_is_kept() -> None:
    rows = [row(3), row(2, State.BUILDING), row(1)]
    assert retained({"ocr": rows}, {"ocr": 0}) == {"d3", "d2"}


def test_what_was_retired_is_kept_though_a_newer_one_was_given_up() -> None:
    rows = [row(4, State.ABANDONED), row(3), row(2), row(1, State.FAILED)]
    assert retained({"ocr": rows}, {"ocr": 0}) == {"d4", "d3"}


def test_the_past_of_the_newest_and_of_what_is_needed_is_remembered() -> None:
    newest = [row(9), row(8)]
    assert remembered(newest, [row(9), row(2, State.LIVE)]) == {9, 8, 2}
