"""What happened, as rows: the views of `superbrain history` and `superbrain report`."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console, RenderableType

from superbrain.cli.history import history_view
from superbrain.cli.report import report_view
from superbrain.domain.deployment import Reason
from superbrain.domain.operations import Transition
from superbrain.domain.proof import Proof, Timing
from tests.support.reports import NOON, sample_report, sample_transitions


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160, color_system=None, highlight=False)


def lines(console: Console, view: RenderableType) -> list[str]:
    with console.capture() as captured:
        console.print(view)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_history_is_newest_first_as_the_daemon_told_it(console: Console) -> None:
    _header, first, *_rest = lines(console, history_view(console, sample_transitions()))
    assert first.endswith("ocr 3.0.1 #7  probation -> live  tensorrt:fp32")


def test_why_a_step_happened_stands_below_it(console: Console) -> None:
    rows = lines(console, history_view(console, sample_transitions()))
    fell = next(index for index, row in enumerate(rows) if "proving -> building" in row)
    assert rows[fell + 1].strip().startswith("case 'invoice', output 'boxes': cosine 0.25")


def test_a_report_tells_the_life_oldest_first_with_durations(console: Console) -> None:
    rows = lines(console, report_view(console, sample_report()))
    life = rows[rows.index("Life") + 2 :]
    assert life[0].endswith("received -> verifying")
    assert life[2].split()[2:6] == ["1", "min", "32", "s"]
    assert life[-1].endswith("10 min  probation -> live  tensorrt:fp32")


def test_a_report_shows_every_proof_with_its_verdict(console: Console) -> None:
    rows = lines(console, report_view(console, sample_report()))
    proofs = [row.split("TensorRT")[0].split() for row in rows if row.startswith("Proof on")]
    assert proofs == [
        ["Proof", "on", "tensorrt:fp16", "failed"],
        ["Proof", "on", "tensorrt:fp32", "passed"],
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_a_failed_proof_says_why_at_any_width(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    rows = lines(console, report_view(console, sample_report()))
    assert "  invoice, boxes: cosine 0.25, expected at least 0.999" in rows


def test_a_report_shows_who_signed_and_how_it_serves(console: Console) -> None:
    rows = lines(console, report_view(console, sample_report()))
    assert "signed by  3f2a90c1, b7d1e6aa" in rows
    assert "batching   up to 8  requests that wait when a run ends share the next one" in rows


def test_a_report_of_a_bundle_that_is_not_kept_says_why_it_ended(console: Console) -> None:
    report = msgspec.structs.replace(
        sample_report(),
        state="REJECTED",
        reason=Reason("DATE_EXPIRED", "expected a date ahead, found 2020", "Build a newer one"),
        stored=False,
        created=None,
        signers=[],
        settings=[],
        proofs=[],
    )
    rows = lines(console, report_view(console, report))
    assert "state      rejected" in rows
    assert "because    DATE_EXPIRED: expected a date ahead, found 2020" in rows
    assert "           -> Build a newer one" in rows
    assert "created    not known: its bundle is not in the store" in rows
    assert "Serving" not in rows


def test_a_deployment_that_was_never_proven_says_so(console: Console) -> None:
    report = msgspec.structs.replace(sample_report(), proofs=[])
    assert "No proof was run" in lines(console, report_view(console, report))


def test_a_proof_that_compared_nothing_says_so(console: Console) -> None:
    empty = Proof("onnxruntime:cpu", figures=[], times=[])
    record = msgspec.structs.replace(sample_report().proofs[0], proof=empty)
    report = msgspec.structs.replace(sample_report(), proofs=[record])
    text = "\n".join(lines(console, report_view(console, report)))
    assert "no golden case produced anything to compare" in text


def test_an_incident_is_told_by_its_name_with_what_happened(console: Console) -> None:
    hung = Transition(NOON, 7, "ocr", "3.0.1", "WorkerHung", "LIVE", "LIVE", "one", "for 32 s")
    _header, first, second = lines(console, history_view(console, [hung]))
    assert first.endswith("ocr 3.0.1 #7  worker hung")
    assert second.strip() == "for 32 s"


def test_a_report_shows_what_became_of_every_rung(console: Console) -> None:
    rows = lines(console, report_view(console, sample_report()))
    ladder = rows[rows.index("Ladder") + 2 :][:3]
    assert [row.split() for row in ladder] == [
        ["tensorrt:fp16", "drifts", *["cosine", "0.25", "is", "below", "0.999"]],
        ["tensorrt:fp32", "chosen", "3.2"],
        ["onnxruntime:cpu", "proven", "41.2"],
    ]


def test_a_ladder_that_was_not_timed_has_no_column_for_it(console: Console) -> None:
    report = sample_report()
    untimed = [msgspec.structs.replace(one, milliseconds=None) for one in report.rungs]
    rows = lines(console, report_view(console, msgspec.structs.replace(report, rungs=untimed)))
    assert rows[rows.index("Ladder") + 1].split() == ["rung", "verdict", "because"]


def test_a_timed_proof_says_how_long_a_request_took(console: Console) -> None:
    report = sample_report()
    record = report.proofs[-1]
    timing = Timing(rounds=20, median_ms=3.25, fastest_ms=3.1, slowest_ms=9.0)
    timed = msgspec.structs.replace(
        record, proof=msgspec.structs.replace(record.proof, timing=timing)
    )
    text = "\n".join(
        lines(console, report_view(console, msgspec.structs.replace(report, proofs=[timed])))
    )
    assert "3.2 ms a request, median of 20 rounds of 3.1 to 9.0" in text
