"""A ladder as people read it: a verdict for every rung."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from superbrain.domain.deployment import Deployment, Reason, RungOutcome, State
from superbrain.domain.rung_facts import VERDICTS, rung_facts

DOCUMENT = (Path(__file__).parents[3] / "docs/rungs.md").read_text()
DRIFT = Reason("GOLDEN_MISMATCH", "cosine 0.25 is below 0.99", "See the report")


def deployment(state: State, rung_index: int, *outcomes: RungOutcome) -> Deployment:
    ladder = ("fp16", "int8", "fp32")
    made = Deployment(
        id=1, name="a", version="1.0.0", sequence=1, digest="", ladder=ladder, state=state
    )
    return msgspec.structs.replace(made, rung_index=rung_index, outcomes=outcomes)


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        (deployment(State.VERIFYING, 0), ["not tried", "not tried", "not tried"]),
        (deployment(State.ABANDONED, 0), ["not tried", "not tried", "not tried"]),
        (deployment(State.ROLLED_BACK, 0), ["chosen", "not tried", "not tried"]),
        (deployment(State.BUILDING, 0), ["under way", "not tried", "not tried"]),
        (
            deployment(State.PROVING, 1, RungOutcome("fp16", DRIFT)),
            ["drifts", "under way", "not tried"],
        ),
        (
            deployment(State.LIVE, 1, RungOutcome("fp16", DRIFT), RungOutcome("int8")),
            ["drifts", "chosen", "not tried"],
        ),
        (
            deployment(
                State.LIVE,
                2,
                RungOutcome("fp16", Reason("NoDevice", "none")),
                RungOutcome("int8", milliseconds=2.0),
                RungOutcome("fp32", milliseconds=1.0),
            ),
            ["no device", "proven", "chosen"],
        ),
        (deployment(State.LIVE, 0), ["chosen", "not tried", "not tried"]),
        (
            deployment(State.FAILED, 2, RungOutcome("fp32", Reason("SANDBOX_UNAVAILABLE", "no"))),
            ["not tried", "not tried", "failed"],
        ),
    ],
)
def test_every_rung_has_a_verdict(found: Deployment, verdicts: list[str]) -> None:
    assert [one.verdict for one in rung_facts(found)] == verdicts


def test_reason_and_time_are_told_whole() -> None:
    first, second, _ = rung_facts(
        deployment(State.LIVE, 1, RungOutcome("fp16", DRIFT), RungOutcome("int8", milliseconds=2.5))
    )
    assert (first.reason, first.mend) == (DRIFT.message, DRIFT.mend)
    assert second.milliseconds == 2.5


@pytest.mark.parametrize(("code", "verdict"), VERDICTS.items())
def test_the_document_explains_every_verdict(code: str, verdict: str) -> None:
    assert f"`{verdict}`" in DOCUMENT
    assert f"`{code}`" in DOCUMENT


# --- engines that the bundle brings along ---------------------------------------------------------


def test_an_engine_of_the_bundle_that_was_set_aside_stands_before_its_rung() -> None:
    aside = RungOutcome("fp16", Reason("CarriedEngineUnfit", "for GPU B, found one for GPU A"))
    found = msgspec.structs.replace(deployment(State.LIVE, 0), carried=(aside,))
    facts = rung_facts(found)
    assert [(one.rung, one.verdict) for one in facts[:2]] == [
        ("fp16 (bundle's engine)", "not for this host"),
        ("fp16", "chosen"),
    ]
    assert facts[0].reason == "for GPU B, found one for GPU A"
    assert len(facts) == 4


def test_a_rung_that_runs_the_engine_of_the_bundle_says_so() -> None:
    found = msgspec.structs.replace(deployment(State.LIVE, 0), carried=(RungOutcome("fp16"),))
    (first, *rest) = rung_facts(found)
    assert (first.verdict, first.reason) == (
        "chosen",
        "with the engine that the bundle brings along",
    )
    assert [one.reason for one in rest] == ["", ""]
