"""How a load test looks: in a terminal, and as a page."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from superbrain.cli.load.figures import Latency, Plan, Step, Usage
from superbrain.cli.load.html import report_html
from superbrain.cli.load.plot import scatter
from superbrain.cli.load.text import LoadReport, report_text, size_text, table

USAGE = [Usage("daemon", 0.01, 61_000_000), Usage("worker", 0.9, 80_000_000)]


def step(callers: int, throughput: float, p50: float) -> Step:
    latency = Latency(p50, p50, p50 * 2, p50 * 3, p50 * 4, p50 * 5)
    return Step(
        Plan(callers, 0, 1, 5), 5000, throughput, latency, {}, {"1.2.0": 5000}, 0.4, 1.5, USAGE
    )


def report(**more: Any) -> LoadReport:  # noqa: ANN401
    made = LoadReport(
        model="ocr",
        versions=["1.2.0"],
        machine="2 cores",
        road="by lanes",
        request_bytes=602_112,
        cases=3,
        steps=[step(1, 400, 2.5), step(8, 1200.4, 6.6)],
        advice=["a <hint>"],
    )
    return msgspec.structs.replace(made, **more)


def test_a_report_says_what_was_asked_how_it_went_and_what_to_do() -> None:
    lines = report_text(report(), width=120).splitlines()
    assert lines[0] == "ocr 1.2.0  3 golden cases, 602 KB a request  by lanes"
    assert lines[3].split()[:3] == ["callers", "requests/s", "mean"]
    assert lines[5].split()[:4] == ["8", "1,200", "6.60", "6.60"]
    assert "memory at the end: daemon 61 MB, worker 80 MB" in lines
    assert lines[-1] == "- a <hint>"


def test_numbers_line_up_to_the_right() -> None:
    rows = table(report().steps, 200)
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_gets_fewer_columns(width: int) -> None:
    rows = table(report().steps, width)
    assert len(rows[0]) <= width
    assert {"callers", "requests/s", "p50", "p99", "errors"} <= set(rows[0].split())


def test_an_open_loop_names_its_rates() -> None:
    steps = [msgspec.structs.replace(step(0, 99, 1), plan=Plan(0, 100, 1, 5)), step(4, 400, 1)]
    rows = table(steps, 200)
    assert rows[0].split()[0] == "load"
    assert [row.strip().split("  ")[0] for row in rows[1:]] == ["100/s", "4 callers"]


def test_why_there_are_no_figures_of_processes_is_said() -> None:
    text = report_text(report(unwatched="superbraind is not running"), width=120)
    assert "no figures of the appliance's processes: superbraind is not running" in text


def test_one_step_needs_no_plot() -> None:
    assert "median" not in report_text(report(steps=[step(1, 400, 2.5)]), width=120)


def test_a_plot_has_its_points_where_they_belong() -> None:
    drawn = scatter(
        {"m": [(100, 1), (200, 100)]}, x_label="x", y_label="y", width=21, height=5
    ).splitlines()
    assert drawn[0] == "y"
    assert drawn[1] == "100 |                    m"
    assert drawn[5] == "  1 |m"
    assert drawn[-1] == "     100             200 x"


def test_points_at_one_place_are_drawn() -> None:
    assert "m" in scatter({"m": [(5, 2)]}, x_label="x", y_label="y")
    assert scatter({}, x_label="x", y_label="y") == ""


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 bytes"), (602_112, "602 KB"), (6_220_800, "6.22 MB")]
)
def test_sizes_have_units(count: int, text: str) -> None:
    assert size_text(count) == text


def test_the_page_is_well_formed_and_fetches_nothing() -> None:
    page = report_html(report())
    tree = ET.fromstring(
        page.replace("<!doctype html>", "")
        .replace('<meta charset="utf-8">', "")
        .replace("<br>", "<br/>")
    )
    assert "a &lt;hint&gt;" in page
    assert len(list(tree.iter("circle"))) == 6
    assert "http" not in page
    assert "<script" not in page


def test_a_page_without_answers_has_no_plot() -> None:
    nothing = Step(Plan(1, 0, 1, 5), 0, 0, Latency(), {"INTERNAL": 3}, {}, 0, 0)
    assert "<svg" not in report_html(report(steps=[nothing]))
