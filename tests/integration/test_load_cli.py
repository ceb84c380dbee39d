"""`superbrain load` against a real appliance and against a fake server, as typed."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from superbrain.cli.main import main
from superbrain.client.fake import FakeModel, FakeServer
from superbrain.wire.errors import ResourceExhausted
from tests.support.appliance import Appliance
from tests.support.processes import ROOT
from tests.support.releases import go_live, release

pytestmark = pytest.mark.integration
QUICK = ["--duration", "0.5", "--warmup", "0.1"]


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("load")) as appliance:
        go_live(appliance, 1)
        yield appliance


@pytest.fixture(autouse=True)
def endpoints(appliance: Appliance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERBRAIN_ENDPOINT", appliance.endpoint)
    monkeypatch.setenv("SUPERBRAIN_CONTROL", appliance.control_endpoint)


def found(capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401
    return json.loads(capsys.readouterr().out)


def test_a_closed_loop_is_measured_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "adder", "--concurrency", "1,3", "--json", *QUICK]) == 0
    report = found(capsys)
    assert [step["plan"]["callers"] for step in report["steps"]] == [1, 3]
    for step in report["steps"]:
        assert step["requests"] > 10
        assert step["errors"] == {}
        assert step["versions"] == {"1.0.0": step["requests"]}
        assert 0 < step["latency_ms"]["p50"] <= step["latency_ms"]["p99"]
        assert [one["name"] for one in step["usage"]] == ["daemon", "gateway", "worker"]
        assert all(one["memory_bytes"] > 1_000_000 for one in step["usage"])
        assert step["host_cores_busy"] > 0


def test_an_open_loop_sends_at_its_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "adder", "--rate", "100", "--json", "--duration", "2"]) == 0
    (step,) = found(capsys)["steps"]
    assert 100 < step["requests"] < 300
    assert step["unsent"] == 0


@pytest.mark.parametrize(
    ("options", "road"),
    [
        ([], "by lanes"),
        (["--no-lanes"], "through the gateway"),
        (["--shared-memory", "on"], "by lanes, in shared memory"),
        (["--shape", "x=8,4"], "by lanes"),
        (["--processes", "2"], "by lanes"),
    ],
)
def test_every_road_is_offered(
    options: list[str], road: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", "adder", "--concurrency", "2", "--json", *QUICK, *options]) == 0
    report = found(capsys)
    assert report["road"] == road
    assert report["steps"][0]["requests"] > 10


def test_golden_cases_of_a_bundle_are_sent(
    appliance: Appliance, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["load", "adder", "--golden", str(appliance.work / "adder-1.0.0.sbb")]
    assert main([*words, "--concurrency", "2", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("adder 1.0.0  2 golden cases, 48 bytes a request  by lanes\n")
    assert main([*words, "--shared-memory", "on"]) == 1
    assert "expected requests of one shape" in capsys.readouterr().err


def test_a_limit_is_kept_or_not_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["load", "adder", "--rate", "50", *QUICK]
    assert main([*words, "--slo", "p50=10s"]) == 0
    assert "p50 ≤ 10000 ms is kept at 50 requests/s" in capsys.readouterr().out
    assert main([*words, "--slo", "p50=1us"]) == 1
    assert "p50 ≤ 0.001 ms is not kept at 50 requests/s: p50 was" in capsys.readouterr().out
    page = tmp_path / "report.html"
    words = ["load", "adder", "--concurrency", "2", "--slo", "p50=10s", "--html", str(page)]
    assert main([*words, *QUICK]) == 0
    assert "p50 ≤ 10000 ms is kept up to" in capsys.readouterr().out
    assert "is kept up to" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nobody"], 1, "found 'nobody'"),
        (["adder", "--shape", "x=1,5"], 1, "expected shape [-1, 4], found [1, 5]"),
        (["adder", "--golden", "/nowhere"], 1, "No such file"),
        (["nobody", "--html", "/nowhere/x.html"], 1, "a page to /nowhere/x.html, found that /now"),
        (["nobody", "--html", "/"], 1, "expected to write a page to /, found a folder"),
        (["adder", "--slo", "fast"], 2, "such as p99=20ms"),
        (["adder", "--rate", "0"], 2, "expected rates above 0"),
        (["adder", "--concurrency", "1,many"], 2, "many"),
        (["adder", "--shape", "x"], 2, "NAME=SIZE"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", *words]) == code
    assert message in capsys.readouterr().err


def test_without_the_daemon_nothing_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", "adder", "--endpoint", f"ipc://{tmp_path}/none"]) == 1
    assert "none" in capsys.readouterr().err


def test_without_the_control_socket_the_rest_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--concurrency", "1", "--control", f"ipc://{tmp_path}/none", *QUICK]
    assert main(["load", "adder", *words]) == 0
    assert "no figures of the appliance's processes: superbraind is not" in capsys.readouterr().out


def test_an_interrupt_shows_what_was_measured_until_then(appliance: Appliance) -> None:
    appliance.drop(release(appliance, 1, name="interrupted"))
    appliance.wait_live("interrupted", "1.0.0")
    # Whoever runs the tests in the background has them ignore interrupts.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "superbrain.cli.main", "load"]
    options = ["--concurrency", "1", "--duration", "30", "--warmup", "0", "--json"]
    process = subprocess.Popen(
        [*command, "interrupted", *options],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )

    def asked() -> bool:
        model = appliance.model("interrupted")
        return model is not None and model.requests > 500

    appliance.wait_for(asked, "the load to be on")
    os.killpg(process.pid, signal.SIGINT)
    shown, _ = process.communicate(timeout=30)
    report = json.loads(shown)
    assert process.returncode == 130
    assert report["interrupted"] is True
    assert report["steps"][0]["requests"] > 10


def test_requests_that_fail_are_counted_and_end_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = 0

    def moody(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        if seen > 5 and seen % 2:
            raise ResourceExhausted("expected a free place, found none")
        return {"y": request["x"]}

    model = FakeModel(moody, {"x": "FP32[2]"}, {"y": "FP32[2]"})
    with FakeServer({"moody": model}) as server:
        monkeypatch.setenv("SUPERBRAIN_ENDPOINT", server.endpoint)
        assert main(["load", "moody", "--concurrency", "2", "--json", *QUICK]) == 1
    report = found(capsys)
    assert report["steps"][0]["errors"]["RESOURCE_EXHAUSTED"] > 0
    assert "RESOURCE_EXHAUSTED: a queue was full" in report["advice"][0]


def test_the_user_class_for_locust_asks_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locust itself is replaced here by as much of it as the class touches."""
    document = (ROOT / "docs/load-with-locust.md").read_text()
    code = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    assert len(code) == 1
    (tmp_path / "locustfile.py").write_text(code[0])
    fired: list[dict[str, Any]] = []
    events = SimpleNamespace(request=SimpleNamespace(fire=lambda **told: fired.append(told)))
    pool = SimpleNamespace(apply=lambda call, given, named: call(*given, **named), maxsize=0)
    import select

    stand_ins: dict[str, dict[str, Any]] = {
        "locust": {
            "User": type("User", (), {"environment": SimpleNamespace(events=events)}),
            "constant": lambda seconds: seconds,
            "task": lambda method: method,
        },
        "gevent": {
            "get_hub": lambda: SimpleNamespace(threadpool=pool),
            "monkey": SimpleNamespace(get_original=lambda module, name: select.epoll),
        },
    }
    for name, content in stand_ins.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    namespace = runpy.run_path(str(tmp_path / "locustfile.py"))
    model = FakeModel(
        lambda request: {"y": np.float32(len(request["text"]))},
        {"text": "BYTES[]"},
        {"y": "FP32[]"},
    )
    with FakeServer({"embedding": model}) as server:
        monkeypatch.setenv("SUPERBRAIN_ENDPOINT", server.endpoint)
        user = namespace["Embedder"]()
        user.on_start()
        user.embed()
        user.infer("unknown", {"text": b"x"})
        user.on_stop()
    assert [(told["name"], told["exception"] is None) for told in fired] == [
        ("embedding", True),
        ("unknown", False),
    ]
    assert fired[0]["response_length"] == 4
    assert pool.maxsize > 0
