"""Which facts are problems, how bad they are, and what to do about them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from superbrain.domain.deployment import State
from superbrain.domain.health import (
    CandidateFacts,
    InboxFile,
    ModelFacts,
    ModelState,
    Problem,
    Severity,
)
from superbrain.domain.health_rules import Judgement, judge, status_line, worst
from superbrain.domain.outage import OutageFacts, Outcome
from tests.support.reports import GATEWAY, GIB, HOST, ORIENTATION


def judged(**facts: object) -> Judgement:
    """Judge a host that is well but for `facts`."""
    well: dict[str, Any] = {"gateway": GATEWAY, "host": HOST, "models": [ORIENTATION]}
    return judge(**(well | facts))


def with_state(state: ModelState, last_error: str = "", mend: str = "") -> ModelFacts:
    return msgspec.structs.replace(ORIENTATION, state=state, last_error=last_error, mend=mend)


def with_candidate(state: str, detail: str = "", mend: str = "") -> ModelFacts:
    candidate = CandidateFacts(
        deployment_id=9, version="1.3.0", state=state, detail=detail, mend=mend
    )
    return msgspec.structs.replace(ORIENTATION, candidate=candidate)


def test_a_host_that_is_well_is_ok_and_ready() -> None:
    assert judged() == Judgement("ok", True, [])


def test_a_host_without_models_is_ok_and_ready() -> None:
    assert judged(models=[]) == Judgement("ok", True, [])


STATES: dict[ModelState, tuple[Severity, bool]] = {
    "ready": ("ok", True),
    "starting": ("ok", False),
    "degraded": ("warning", True),
    "unavailable": ("critical", False),
}


@pytest.mark.parametrize(("state", "verdict"), STATES.items())
def test_a_models_state_decides(state: ModelState, verdict: tuple[Severity, bool]) -> None:
    judgement = judged(models=[with_state(state)])
    assert (judgement.status, judgement.ready) == verdict


@pytest.mark.parametrize(("outcome", "told"), [("under way", 1), ("switched", 0)])
def test_a_brief_outage_is_a_warning_while_it_lasts(outcome: Outcome, told: int) -> None:
    began = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    outage = OutageFacts(began, "1.3.0", "tensorrt:fp16", "why", 60.0, 2.345, outcome)
    model = msgspec.structs.replace(with_state("starting"), outage=outage)
    problems = judged(models=[model]).problems
    assert len(problems) == told
    assert all(
        "1.3.0 on tensorrt:fp16: nobody has answered for 2.3 s" in one.message for one in problems
    )


def test_a_models_own_error_and_mend_are_told() -> None:
    model = with_state("unavailable", last_error="out of memory", mend="free 2 GiB")
    (problem,) = judged(models=[model]).problems
    assert problem == Problem("critical", "model orientation", "out of memory", "free 2 GiB")


@pytest.mark.parametrize("state", ["degraded", "unavailable"])
def test_a_model_that_says_nothing_still_has_a_mend(state: ModelState) -> None:
    (problem,) = judged(models=[with_state(state)]).problems
    assert "orientation 1.2.0" in problem.message
    assert "superbrain" in problem.mend


def test_a_gateway_that_does_not_run_is_critical_and_nothing_is_ready() -> None:
    judgement = judged(gateway=msgspec.structs.replace(GATEWAY, running=False))
    assert (judgement.status, judgement.ready) == ("critical", False)


ENDINGS = {
    State.REJECTED: "warning",
    State.FAILED: "warning",
    State.ROLLED_BACK: "warning",
    State.BROKEN: "warning",
    State.ABANDONED: "ok",
    State.RETIRED: "ok",
    State.BUILDING: "ok",
}


@pytest.mark.parametrize(("state", "status"), ENDINGS.items())
def test_a_candidate_that_ended_badly_is_a_warning(state: State, status: Severity) -> None:
    assert judged(models=[with_candidate(state)]).status == status


def test_a_candidates_reason_and_mend_are_told() -> None:
    model = with_candidate("REJECTED", "cosine 0.25, expected 0.999", "build it in fp32")
    (problem,) = judged(models=[model]).problems
    assert problem.message == "orientation 1.3.0 was rejected: cosine 0.25, expected 0.999"
    assert problem.mend == "build it in fp32"


SAID = {
    State.REJECTED: "orientation 1.3.0 was rejected",
    State.FAILED: "orientation 1.3.0 failed",
    State.ROLLED_BACK: "orientation 1.3.0 was rolled back",
    State.BROKEN: "orientation 1.3.0 is broken",
}


@pytest.mark.parametrize(("state", "sentence"), SAID.items())
def test_how_a_candidate_ended_is_said_as_people_say_it(state: State, sentence: str) -> None:
    (problem,) = judged(models=[with_candidate(state)]).problems
    assert problem.message == sentence


DISKS = {
    "roomy": (200 * GIB, 60 * GIB, "ok"),
    "below 5 %": (200 * GIB, 9 * GIB, "warning"),
    "exactly 5 %": (200 * GIB, 10 * GIB, "ok"),
    "below 1 GiB though above 5 %": (8 * GIB, GIB - 1, "warning"),
    "below 1 %": (200 * GIB, 2 * GIB - 1, "critical"),
    "full": (200 * GIB, 0, "critical"),
    "unknown": (0, 0, "ok"),
}


@pytest.mark.parametrize(("total", "free", "status"), DISKS.values(), ids=DISKS.keys())
def test_free_disk_decides(total: int, free: int, status: Severity) -> None:
    host = msgspec.structs.replace(HOST, disk_total_bytes=total, disk_free_bytes=free)
    assert judged(host=host).status == status


@pytest.mark.parametrize(("percent", "status"), [(4.9, "warning"), (5.0, "ok")])
def test_available_memory_decides(percent: float, status: Severity) -> None:
    host = msgspec.structs.replace(
        HOST, memory_total_bytes=100_000, memory_available_bytes=int(1000 * percent)
    )
    assert judged(host=host).status == status


def test_a_refused_file_is_a_warning_with_its_mend() -> None:
    file = InboxFile("ocr-1.sbb", "refused", "not signed", "sign it")
    (problem,) = judged(inbox=[file]).problems
    assert problem == Problem("warning", "inbox ocr-1.sbb", "not signed", "sign it")


@pytest.mark.parametrize("outcome", ["refused", "stalled"])
def test_files_beyond_those_that_are_listed_are_one_problem_that_counts_them(outcome: str) -> None:
    (problem,) = judged(inbox_more={outcome: 250, "waiting": 3, "ignored": 9}).problems
    assert (problem.severity, problem.subject) == ("warning", "inbox")
    assert problem.message.startswith("250 more")
    assert problem.mend


@pytest.mark.parametrize("outcome", ["waiting", "ignored"])
def test_any_other_file_is_no_problem(outcome: str) -> None:
    file = msgspec.convert({"name": "a", "outcome": outcome, "message": ""}, InboxFile)
    assert judged(inbox=[file]).status == "ok"


def test_the_worst_problem_comes_first_and_gives_the_status() -> None:
    file = InboxFile("ocr-1.sbb", "refused", "not signed")
    judgement = judged(inbox=[file], models=[with_state("degraded"), with_state("unavailable")])
    severities = [problem.severity for problem in judgement.problems]
    assert severities == ["critical", "warning", "warning"]
    assert judgement.status == "critical"


def test_problems_that_the_caller_knows_count_too() -> None:
    known = Problem("warning", "trust", "a key expires in 3 days")
    assert judged(known=[known]) == Judgement("warning", True, [known])


def test_no_problem_is_ok() -> None:
    assert worst([]) == "ok"


@pytest.mark.parametrize(
    "facts",
    [
        {"gateway": msgspec.structs.replace(GATEWAY, running=False)},
        {"host": msgspec.structs.replace(HOST, disk_free_bytes=0, memory_available_bytes=0)},
        {"models": [with_state("degraded"), with_candidate("FAILED")]},
        {"inbox": [InboxFile("a.sbb", "refused", "no")]},
    ],
    ids=["gateway", "host", "models", "inbox"],
)
def test_every_problem_says_what_to_do(facts: dict[str, Any]) -> None:
    problems = judged(**facts).problems
    assert problems
    assert all(problem.mend for problem in problems)


def test_the_status_line_counts_models_and_names_what_is_under_way() -> None:
    building = CandidateFacts(7, "3.1.0", "BUILDING", percent=43.2)
    models = [
        ModelFacts("ocr", "ready", "3.0.0", 1, candidate=building),
        ModelFacts("voice", "unavailable", "1.0.0", 2),
    ]
    assert status_line(models) == "1 of 2 models ready; ocr 3.1.0 building 43 %"


def test_the_status_line_of_an_empty_host_says_so() -> None:
    assert status_line([]) == "no model is installed"


MISBEHAVING: dict[str, tuple[dict[str, Any], Severity, str]] = {
    "slow": ({"slower": "3.1 times slower than proven"}, "warning", "has become 3.1 times slower"),
    "one of its workers waits": ({"restarts_in_s": 8.2}, "warning", "; restarting in 8 s"),
    "its only worker waits": (
        {"state": "starting", "restarts_in_s": 8.2, "last_error": "it died"},
        "critical",
        "it died; restarting in 8 s",
    ),
    "it is started at once": ({"state": "starting", "restarts_in_s": 0.0}, "ok", ""),
    "a golden case failed": (
        {"fault": "REPROOF_FAILED", "last_error": "expected 1, found 2"},
        "critical",
        "expected 1, found 2",
    ),
    "slow and one waits": (
        {"slower": "3 times slower", "restarts_in_s": 2.0},
        "warning",
        "; restarting in 2 s",
    ),
}


@pytest.mark.parametrize(("facts", "severity", "says"), MISBEHAVING.values(), ids=MISBEHAVING)
def test_how_a_model_misbehaves_is_told(
    facts: dict[str, Any], severity: Severity, says: str
) -> None:
    model = msgspec.structs.replace(ORIENTATION, **({"state": "degraded"} | facts))
    judgement = judged(models=[model])
    assert judgement.status == severity
    assert says in " ".join(problem.message for problem in judgement.problems)
    assert all(problem.mend for problem in judgement.problems)
