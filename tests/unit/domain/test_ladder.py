"""The ladder under `select = "fastest"`: what is tried, what serves, and what survives a kill."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superbrain.domain import deployment as life
from superbrain.domain.deployment import (
    Deployment,
    Reason,
    RungOutcome,
    State,
    advance,
    resume,
)
from superbrain.domain.returning import rungs_to_return_on

LADDER = ("one", "two", "three")
DRIFT = Reason("GOLDEN_MISMATCH", "cosine 0.25 is below 0.99")
BROKEN = Reason("EngineError", "it does not load")


def building(select: str = "fastest", ladder: tuple[str, ...] = LADDER) -> Deployment:
    return Deployment(
        id=7,
        name="ocr",
        version="1.0.0",
        sequence=1,
        digest="ab",
        ladder=ladder,
        state=State.BUILDING,
        select=select,  # type: ignore[arg-type]
    )


def try_rung(deployment: Deployment, result: float | Reason) -> Deployment:
    """Build and prove the rung it is on, as the stages would: a time, or what was wrong."""
    assert deployment.state is State.BUILDING
    if result is BROKEN:
        return advance(deployment, life.StageFailed(BROKEN))[0]
    proving, _ = advance(deployment, life.Built())
    if isinstance(result, Reason):
        return advance(proving, life.Mismatched(result))[0]
    if proving.is_compared:
        return advance(proving, life.Timed(result))[0]
    return advance(proving, life.Matched())[0]


def try_all(deployment: Deployment, results: dict[str, float | Reason]) -> list[str]:
    """Follow the ladder to its end; the rungs in the order in which they were built."""
    built = []
    while deployment.state is State.BUILDING:
        built.append(deployment.rung)
        deployment = try_rung(deployment, results[deployment.rung])
    return [*built, str(deployment.state)]


@pytest.mark.parametrize(
    ("results", "built"),
    [
        ({"one": 3.0, "two": 2.0, "three": 5.0}, ["one", "two", "three", "two", "SWITCHING"]),
        ({"one": 3.0, "two": 2.0, "three": 1.0}, ["one", "two", "three", "SWITCHING"]),
        ({"one": 2.0, "two": 2.0, "three": 2.0}, ["one", "two", "three", "one", "SWITCHING"]),
        ({"one": DRIFT, "two": BROKEN, "three": 9.0}, ["one", "two", "three", "SWITCHING"]),
        ({"one": 4.0, "two": 9.0, "three": DRIFT}, ["one", "two", "three", "one", "SWITCHING"]),
        ({"one": BROKEN, "two": BROKEN, "three": BROKEN}, ["one", "two", "three", "FAILED"]),
        ({"one": BROKEN, "two": BROKEN, "three": DRIFT}, ["one", "two", "three", "REJECTED"]),
    ],
)
def test_all_rungs_are_tried_and_the_fastest_that_proved_serves(
    results: dict[str, float | Reason], built: list[str]
) -> None:
    assert try_all(building(), results) == built


def test_the_first_that_proves_serves_unless_told_otherwise() -> None:
    results: dict[str, float | Reason] = {"one": DRIFT, "two": 9.0, "three": 1.0}
    assert try_all(building("first"), results) == ["one", "two", "SWITCHING"]


def test_a_ladder_of_one_rung_compares_nothing() -> None:
    assert not building(ladder=("one",)).is_compared


def test_the_fastest_that_fails_when_it_is_built_again_is_followed_by_the_next_fastest() -> None:
    deployment = building()
    for milliseconds in (3.0, 1.0, 2.0):
        deployment = try_rung(deployment, milliseconds)
    order = []
    while deployment.state is State.BUILDING:
        order.append(deployment.rung)
        deployment = try_rung(deployment, BROKEN)
    assert order == ["two", "three", "one"]
    assert deployment.state is State.FAILED
    assert [one.reason for one in deployment.outcomes] == [BROKEN] * 3


def test_what_became_of_every_rung_is_kept_with_its_reason_or_time() -> None:
    deployment = try_rung(try_rung(building(), DRIFT), 2.0)
    deployment = try_rung(deployment, BROKEN)
    assert deployment.outcomes == (
        RungOutcome("one", DRIFT),
        RungOutcome("two", milliseconds=2.0),
        RungOutcome("three", BROKEN),
    )


def test_a_rung_that_serves_untimed_is_among_the_outcomes_too() -> None:
    deployment = try_rung(try_rung(building("first"), BROKEN), 0.0)
    assert deployment.outcomes == (RungOutcome("one", BROKEN), RungOutcome("two"))


RESULTS = st.one_of(st.floats(0.1, 99), st.sampled_from([DRIFT, BROKEN]))


@settings(deadline=None)
@given(
    results=st.fixed_dictionaries(dict.fromkeys(LADDER, RESULTS)),
    kills=st.sets(st.integers(0, 12)),
)
def test_a_kill_at_any_step_changes_nothing_but_what_was_under_way(
    results: dict[str, float | Reason], kills: set[int]
) -> None:
    undisturbed = try_all(building(), results)[-2:]
    deployment, step = building(), 0
    while deployment.state in life.UNFINISHED and deployment.state is not State.SWITCHING:
        if step in kills:
            stored = msgspec.json.decode(msgspec.json.encode(deployment), type=Deployment)
            deployment, commands = resume(stored)
            assert commands == (life.Build(),)
        deployment = try_rung(deployment, results[deployment.rung])
        step += 1
    assert [deployment.rung, str(deployment.state)] == undisturbed
    good = [value for value in results.values() if isinstance(value, float)]
    assert (deployment.state is State.SWITCHING) == bool(good)
    assert not good or results[deployment.rung] == min(good)


def test_a_kill_while_the_chosen_one_is_switched_builds_it_again_and_times_nothing() -> None:
    deployment = building()
    for milliseconds in (3.0, 1.0, 2.0):
        deployment = try_rung(deployment, milliseconds)
    switching = try_rung(deployment, 1.0)
    resumed, commands = resume(switching)
    assert (resumed.rung, commands, resumed.is_compared) == ("two", (life.Build(),), False)


@pytest.mark.parametrize(
    ("select", "rung_index", "expected"),
    [("first", 0, (0, 1, 2)), ("first", 1, (1, 2)), ("fastest", 1, (1, 2, 0))],
)
def test_what_served_comes_back_on_its_own_rung_first(
    select: str, rung_index: int, expected: tuple[int, ...]
) -> None:
    outcomes = (
        RungOutcome("one", DRIFT),
        RungOutcome("two", None, 1),
        RungOutcome("three", None, 2),
    )
    served = msgspec.structs.replace(
        building(select), state=State.LIVE, rung_index=rung_index, outcomes=outcomes
    )
    assert rungs_to_return_on(served) == expected


def test_a_deployment_written_before_there_were_outcomes_is_read() -> None:
    old = msgspec.json.decode(msgspec.json.encode(building("first")))
    del old["select"], old["outcomes"]
    read = msgspec.convert(old, Deployment)
    assert (read.select, read.outcomes) == ("first", ())
