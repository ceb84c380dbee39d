"""A proof as people see it: rows of figures that are never cut, reasons in whole lines below."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from superbrain.cli.proof_table import proof_view
from superbrain.domain.proof import EVERY_OUTPUT, CaseTime, OutputFigures, Proof

GOOD = OutputFigures(
    "page", "scores", "", passed=True, tolerance="exact", max_abs_error=0.0, cosine=0.5
)
GRAPH = OutputFigures("page", "y", "det", passed=True, tolerance="cosine ≥ 0.9")
BAD = OutputFigures("[bold]", "label", "", passed=False, tolerance="exact", reason="expected [1]")
FAR_OFF = OutputFigures(
    "turned-270",
    "confidence",
    "",
    passed=False,
    tolerance="rtol 0.001, atol 0.0001",
    reason="error 0.424 is above atol 0.0001 + rtol 0.001 × |0.925092|",
    max_abs_error=0.424,
    max_rel_error=1.19e-07,
    cosine=0.999999,
)


def shown(*figures: OutputFigures, width: int = 120, terminal: bool = False) -> list[str]:
    """The lines of a view, without the spaces at their ends."""
    times = [CaseTime(case, 12.34) for case in dict.fromkeys(one.case for one in figures)]
    console = Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
        width=width,
        force_terminal=terminal,
        color_system=None,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(proof_view(console, Proof("onnxruntime:cpu", list(figures), times)))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_row_names_case_output_tolerance_figures_time_and_verdict() -> None:
    header, row = shown(GOOD)
    assert " ".join(header.split()) == "case output tolerance max abs cosine ms verdict"
    assert row.split() == ["page", "scores", "exact", "0", "0.500000", "12.3", "proven"]


def test_figures_that_nothing_has_get_no_column() -> None:
    assert "max rel" not in shown(GOOD)[0]
    assert "cosine" not in shown(BAD)[0]


def test_the_time_of_a_case_stands_once_beside_its_response() -> None:
    boxes = OutputFigures("page", "boxes", "", passed=True, tolerance="exact")
    rows = shown(GRAPH, GOOD, boxes, FAR_OFF)[1:5]
    assert ["12.3" in row for row in rows] == [False, True, False, True]


def test_an_output_of_a_graph_is_named_with_it() -> None:
    assert shown(GRAPH)[1].split()[:2] == ["page", "det/y"]


def test_reasons_stand_below_the_table_in_whole_lines() -> None:
    lines = shown(GOOD, FAR_OFF)
    assert lines[2].endswith("failed")
    assert lines[3:] == ["", f"  turned-270, confidence: {FAR_OFF.reason}"]


def test_the_reason_of_a_wrong_label_stands_before_that_of_its_confidence() -> None:
    label = OutputFigures("turned-270", "label", "", False, "exact", "expected '270', found '90'")
    *_, first, second = shown(FAR_OFF, label)
    assert first.strip().startswith("turned-270, label: expected '270'")
    assert second.strip().startswith("turned-270, confidence: ")


def test_a_case_that_had_no_output_gives_its_reason_without_one() -> None:
    broken = OutputFigures("page", EVERY_OUTPUT, "", False, "", "RuntimeError: unlucky")
    assert shown(broken)[-1] == "  page: RuntimeError: unlucky"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("fact", ["0.424", "1.19e-07", "0.999999", "12.3", "failed", "verdict"])
def test_no_figure_is_cut_on_80_columns(fact: str, terminal: bool) -> None:
    lines = shown(FAR_OFF, GOOD, width=80, terminal=terminal)
    assert max(map(len, lines)) <= 80
    assert any(fact in line.split() for line in lines)


def test_tolerances_that_find_no_room_are_told_once_for_each_output() -> None:
    lines = shown(FAR_OFF, FAR_OFF, GOOD, width=80)
    assert "tolerance" not in lines[0]
    told = [line.strip() for line in lines if line.strip().startswith("tolerance of")]
    assert told == [
        "tolerance of confidence: rtol 0.001, atol 0.0001",
        "tolerance of scores: exact",
    ]


def test_long_names_are_folded_and_not_the_figures() -> None:
    long = OutputFigures("a" * 64, "b" * 64, "", True, "exact", "", 1.19e-07, 1.19e-07, 0.999999)
    lines = shown(long, width=80)
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if "proven" in line)
    assert row.split()[2:] == ["1.19e-07", "1.19e-07", "0.999999", "12.3", "proven"]
    assert "".join(lines).count("a") >= 64


def test_a_proof_that_compared_nothing_says_so() -> None:
    assert shown() == ["no golden case produced anything to compare"]


def test_brackets_are_shown_and_not_obeyed() -> None:
    text = "\n".join(shown(BAD))
    assert "[bold], label: expected [1]" in text


def test_into_a_pipe_it_is_words_and_spaces() -> None:
    assert "─" not in "".join(shown(GOOD, FAR_OFF))
    assert "─" in "".join(shown(GOOD, FAR_OFF, terminal=True))
