"""The health report as shown on narrow and wide terminals, and into a pipe."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from superbrain.cli.status_view import status_view
from superbrain.domain.ctl import Quantiles
from superbrain.domain.health import GpuFacts, Health
from superbrain.domain.rung_facts import RungFacts
from superbrain.domain.sandbox import Sandbox
from tests.support.reports import GATEWAY, ORIENTATION, busy_health, sample_health


def shown(health: Health, width: int = 120, *, terminal: bool = False) -> str:
    """The view as text, without colour; `terminal` decides on symbols and lines."""
    console = Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
        width=width,
        force_terminal=terminal,
        color_system=None,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(status_view(console, health))
    return captured.get()


def line_with(text: str, word: str) -> str:
    return next(line for line in text.splitlines() if word in line)


def test_a_calm_host_shows_its_model_and_nothing_else() -> None:
    text = shown(sample_health())
    cells = " ".join(line_with(text, "orientation").split())
    assert cells == (
        "orientation ready 1.2.0 onnxruntime:cpu 6 cases ok, 2 d ago 1.3 M 2.3/6.7 2 0"
    )
    assert not any(word in text for word in ("Under way", "Needs attention", "Inbox"))


def test_a_kernel_that_cannot_hold_a_model_s_code_is_said_and_no_other() -> None:
    loose = Sandbox("partial", system_calls=True, missing=["files can be read"])
    models = [ORIENTATION, msgspec.structs.replace(ORIENTATION, name="ocr", sandbox=loose)]
    text = shown(sample_health(models=models))
    assert line_with(text, "sandbox") == "sandbox of ocr: partial, files can be read"


def test_files_of_the_inbox_that_are_not_listed_are_counted() -> None:
    text = shown(busy_health(inbox_more={"ignored": 9950, "refused": 250}))
    found = line_with(text, "9950 ignored")
    assert "/var/lib/superbrain/inbox" in found
    assert "250" not in found, "more refused files are among the problems"


def test_what_speaks_against_the_rungs_before_is_said_in_one_line() -> None:
    ladder = [
        RungFacts("tensorrt:fp16", "not installed", reason="expected TensorRT, found none"),
        RungFacts("onnxruntime:cpu-int8", "proven", milliseconds=3.5),
        RungFacts("onnxruntime:cpu", "chosen", milliseconds=2.0),
        RungFacts("onnxruntime:cuda", "not tried"),
    ]
    text = shown(sample_health(models=[msgspec.structs.replace(ORIENTATION, ladder=ladder)]))
    assert line_with(text, "serves on") == (
        "orientation serves on onnxruntime:cpu 2.0 ms; "
        "tensorrt:fp16 not installed, onnxruntime:cpu-int8 3.5 ms"
    )


def test_a_gpu_that_is_lost_or_held_down_says_so() -> None:
    lost = GpuFacts(0, "NVIDIA L4", lost="it has fallen off the bus")
    hot = GpuFacts(1, "NVIDIA T4", temperature_celsius=89.0, throttled_by=["temperature"])
    text = shown(sample_health(gpus=[lost, hot]))
    assert line_with(text, "GPU 0") == "GPU 0 NVIDIA L4, lost: it has fallen off the bus"
    assert line_with(text, "GPU 1") == "GPU 1 NVIDIA T4, 89 °C, held down by temperature"


def test_the_headline_says_how_it_is() -> None:
    headline = shown(busy_health()).splitlines()[0]
    words = " ".join(headline.split())
    assert words == "superbrain 0.1.0 on edge-7 critical not ready, up 3 d 4 h"


def test_a_gateway_that_is_down_is_in_the_headline() -> None:
    down = msgspec.structs.replace(GATEWAY, running=False)
    assert "gateway down" in shown(sample_health(gateway=down)).splitlines()[0]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = shown(busy_health(), width, terminal=True).splitlines()
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "fact", ["speech-detection", "unavailable", "onnxruntime:cpu", "6 cases ok", "41.0/142", "bad)"]
)
def test_no_fact_of_a_model_is_cut(width: int, fact: str) -> None:
    assert fact in shown(busy_health(), width, terminal=True)


def test_a_deployment_under_way_shows_how_far_it_is() -> None:
    line = line_with(shown(busy_health()), "3.1.0")
    assert "building tensorrt:fp32  37 %" in line
    assert "since 1 min 35 s" in line


def test_a_problem_is_followed_by_what_to_do() -> None:
    lines = [line.strip() for line in shown(busy_health()).splitlines()]
    problem = next(index for index, line in enumerate(lines) if "signal 11" in line)
    assert lines[problem + 1] == "-> superbrain rollback speech-detection"


def test_a_file_that_is_arriving_shows_how_much_of_it_is_there() -> None:
    assert "(412 MiB of 1.3 GiB)" in line_with(shown(busy_health()), "magika-2.0.0.sbb")


def test_a_gpu_shows_only_what_it_tells() -> None:
    (gpu,) = busy_health().gpus
    silent = msgspec.structs.replace(gpu, temperature_celsius=None, power_watts=None)
    line = line_with(shown(busy_health(gpus=[silent])), "GPU 0")
    assert line.strip() == "GPU 0 NVIDIA L4, 22 % busy, memory 4.0 GiB of 23.0 GiB used"


def test_a_model_that_was_never_asked_has_no_latency() -> None:
    idle = msgspec.structs.replace(ORIENTATION, requests=0, latency_ms=Quantiles())
    assert " - " in line_with(shown(sample_health(models=[idle])), "orientation")


def test_a_host_without_models_says_where_bundles_go() -> None:
    assert "/var/lib/superbrain/inbox" in shown(sample_health(models=[]))


def test_text_for_a_pipe_has_no_lines_and_symbols() -> None:
    assert shown(busy_health()).replace("…", "").replace("°", "").isascii()


def test_a_terminal_gets_symbols() -> None:
    assert "✖ critical" in shown(busy_health(), terminal=True)


def test_markup_in_a_message_is_shown_as_it_is() -> None:
    model = msgspec.structs.replace(ORIENTATION, name="[red]x[/red]")
    assert "[red]x[/red]" in shown(sample_health(models=[model]))
