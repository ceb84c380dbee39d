"""`superbrain top` without a terminal: rates out of reports, curves, and views that fit."""

from __future__ import annotations

import datetime as dt
import io

import msgspec
import pytest
from rich.console import Console

from superbrain.cli.sparkline import meter, sparkline
from superbrain.cli.top_trend import Trend
from superbrain.cli.top_view import top_view
from superbrain.domain.health import GatewayTraffic, Health, ModelFacts
from tests.support.reports import (
    NOON,
    OCR,
    durations,
    full_health,
    sample_health,
    sample_transitions,
    version_facts,
)

SIZES = [(80, 24), (200, 50), (120, 30), (100, 16), (60, 12), (40, 10)]


def report(second: float, requests: int, **changes: object) -> Health:
    """What is known at a second after noon, of a model that has answered so many requests."""
    model = msgspec.structs.replace(
        OCR,
        requests=requests,
        gateway=GatewayTraffic(requests=requests, latency=durations(requests, 12)),
        versions=[version_facts("3.0.1", requests)],
        **changes,
    )
    at = NOON + dt.timedelta(seconds=second)
    return sample_health(at=at, counted_at=at, models=[model])


def trend_of(*reports: Health) -> Trend:
    trend = Trend()
    for one in reports:
        trend.add(one)
    return trend


# --- rates ----------------------------------------------------------------------------------------


def test_a_rate_is_between_two_reports() -> None:
    trend = trend_of(report(0, 100), report(2, 150, errors=13))
    (model,) = trend.models
    assert (trend.over_s, model.requests_per_second, model.errors_per_second) == (2.0, 25.0, 5.0)
    assert model.mean_ms == pytest.approx(10)
    assert model.stages_ms == pytest.approx(
        {"queue": 1, "preprocess": 2, "engine": 3, "postprocess": 4}
    )


def test_one_report_has_no_rate() -> None:
    trend = trend_of(report(0, 100))
    assert (trend.over_s, trend.models[0].requests_per_second) == (0.0, 0.0)
    assert not trend.rates("ocr")


def test_figures_that_are_known_already_add_nothing_but_the_state() -> None:
    known = report(2, 150)
    later = msgspec.structs.replace(known, at=NOON + dt.timedelta(seconds=3))
    model = msgspec.structs.replace(known.models[0], state="degraded")
    trend = trend_of(report(0, 100), known, msgspec.structs.replace(later, models=[model]))
    assert trend.rates("ocr") == [25.0]
    assert (trend.models[0].requests_per_second, trend.models[0].state) == (25.0, "degraded")


def test_no_request_in_between_is_no_time() -> None:
    trend = trend_of(report(0, 100), report(2, 100), report(4, 101))
    assert trend.times("ocr") == [None, pytest.approx(10)]


def test_a_daemon_that_began_anew_has_no_negative_rate() -> None:
    trend = trend_of(report(0, 100), report(2, 5))
    assert trend.models[0].requests_per_second == 0


def test_a_model_that_has_come_begins_without_a_rate_and_one_that_went_is_forgotten() -> None:
    new = msgspec.structs.replace(report(2, 70).models[0], name="speech")
    trend = trend_of(report(0, 100), msgspec.structs.replace(report(2, 0), models=[new]))
    assert [(one.name, one.requests_per_second) for one in trend.models] == [("speech", 0.0)]
    assert (trend.rates("ocr"), trend.rates("speech")) == ([], [0.0])


# --- curves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], "    "),
        ([0.0, 0.0], "  ▁▁"),
        ([0.0, 4.0, 8.0], " ▁▄█"),
        ([None, 1.0], "  ·█"),
        ([9.0, 1.0, 1.0, 1.0, 1.0], "████"),
    ],
)
def test_a_curve_is_as_high_as_its_largest_value(values: list[float | None], drawn: str) -> None:
    assert sparkline(values, 4) == drawn


@pytest.mark.parametrize(
    ("percent", "drawn"), [(0, "░░░░"), (50, "██░░"), (56.25, "██▎░"), (100, "████"), (250, "████")]
)
def test_a_bar_is_exact_to_an_eighth(percent: float, drawn: str) -> None:
    assert meter(percent, 4).plain == drawn


# --- the view -------------------------------------------------------------------------------------


def shown(
    health: Health, width: int, height: int | None, *, terminal: bool = True, foot: str = "q quits"
) -> list[str]:
    """The view as lines of text, after three looks."""
    console = Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
        width=width,
        height=height or 25,
        force_terminal=terminal,
        color_system=None,
        highlight=False,
    )
    looks = [
        msgspec.structs.replace(health, counted_at=NOON + dt.timedelta(seconds=2 * n))
        for n in range(3)
    ]
    with console.capture() as captured:
        view = top_view(
            console, trend_of(*looks), health, sample_transitions(), height=height, foot=foot
        )
        console.print(view)
    return captured.get().splitlines()


def crowded(count: int) -> Health:
    many: list[ModelFacts] = [
        msgspec.structs.replace(OCR, name=f"a-model-with-a-long-name-{number}")
        for number in range(count)
    ]
    return msgspec.structs.replace(full_health(), models=many)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("models", [0, 1, 3, 40])
def test_the_view_fills_the_screen_and_never_more(width: int, height: int, models: int) -> None:
    lines = shown(crowded(models), width, height)
    assert len(lines) == height
    assert max(len(line) for line in lines) <= width
    assert lines[-1].strip() == "q quits"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_a_usual_screen_has_all_parts(width: int, height: int) -> None:
    text = "\n".join(shown(full_health(), width, height))
    for part in ("cpu", "gpu 0", "daemon", "gateway", "orientation", "ocr", "p99", "█"):
        assert part in text
    for title in ("Under way", "Needs attention", "Events"):
        assert title in text
    assert "37 %" in text
    assert "probation → live" in text


def test_a_wide_screen_tells_where_the_time_goes_and_both_curves() -> None:
    lines = shown(report(0, 100), 200, 50)
    assert "queue pre engine post ms" in "\n".join(lines)
    assert "tensorrt:fp16" in next(line for line in lines if "ocr" in line)


def test_a_narrow_screen_has_a_second_line_for_what_has_no_column() -> None:
    lines = shown(report(0, 100), 80, 24)
    row = next(number for number, line in enumerate(lines) if line.startswith("ocr"))
    assert lines[row + 1].split()[0] == "tensorrt:fp16"


def test_what_does_not_fit_is_counted() -> None:
    text = "\n".join(shown(crowded(40), 80, 24)).partition("Under way")[0]
    assert f"and {40 - text.count('● ready')} more: superbrain status" in text


def test_into_a_pipe_everything_is_there_in_plain_characters() -> None:
    lines = shown(full_health(), 200, None, terminal=False, foot="")
    text = "\n".join(lines)
    assert not set("█▁●→") & set(text)
    events = lines[lines.index("Events") + 1 :]
    assert len(events) == len(sample_transitions())


def test_a_gateway_that_is_down_is_said_at_the_top() -> None:
    down = msgspec.structs.replace(full_health().gateway, running=False, process=None)
    lines = shown(msgspec.structs.replace(full_health(), gateway=down), 80, 24)
    assert "gateway down" in lines[0]
    assert "gateway is not running" in "\n".join(lines)
