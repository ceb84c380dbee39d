"""The operator's commands against a control server that speaks over the real socket."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console, RenderableType

from superbrain.cli.control import ControlClient, NoAnswer, NotPermitted, NotRunning
from superbrain.cli.main import main
from superbrain.cli.status import follow
from superbrain.domain.operations import (
    GetHealth,
    GetHistory,
    GetReport,
    HealthReply,
    HistoryReply,
    Operation,
    Outcome,
    Refusal,
    Reload,
    Retire,
    Retry,
    Rollback,
)
from tests.support.control import Answer, ControlServer
from tests.support.reports import busy_health, sample_health, sample_report, sample_transitions

pytestmark = pytest.mark.integration

ANSWERS: dict[type[Operation], Answer] = {
    GetHealth: HealthReply(busy_health()),
    GetHistory: HistoryReply(sample_transitions()),
    GetReport: sample_report(),
    Rollback: Outcome("ocr 3.0.0 answers again"),
    Retire: Outcome("ocr is retired"),
    Retry: Outcome("ocr 3.1.0 is tried again"),
    Reload: Outcome("configuration and keys are read, the inbox is looked through"),
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlServer]:
    with ControlServer(tmp_path / "control.sock", ANSWERS) as server:
        monkeypatch.setenv("SUPERBRAIN_CONTROL", server.endpoint)
        yield server


@pytest.fixture
def serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[type[Operation], Answer], ControlServer]]:
    """Serve one prepared answer."""
    with contextlib.ExitStack() as servers:

        def serve(kind: type[Operation], answer: Answer) -> ControlServer:
            server = ControlServer(tmp_path / "control.sock", {kind: answer})
            monkeypatch.setenv("SUPERBRAIN_CONTROL", server.endpoint)
            return servers.enter_context(server)

        yield serve


QUESTIONS = {
    "status": GetHealth(),
    "health --max-age 1e9": GetHealth(),
    "history": GetHistory(),
    "history ocr --limit 7": GetHistory(model="ocr", limit=7),
    "report ocr": GetReport(model="ocr"),
    "report ocr --version 3.0.1": GetReport(model="ocr", version="3.0.1"),
    "rollback ocr": Rollback(model="ocr"),
    "retire ocr --yes": Retire(model="ocr"),
    "retry ocr": Retry(model="ocr"),
    "retry ocr --version 3.1.0": Retry(model="ocr", version="3.1.0"),
    "reload": Reload(),
}


@pytest.mark.parametrize(("line", "question"), QUESTIONS.items(), ids=QUESTIONS.keys())
def test_a_command_asks_one_question(server: ControlServer, line: str, question: Operation) -> None:
    main(line.split())
    assert server.asked == [question]


@pytest.mark.parametrize("line", ["rollback ocr", "retire ocr --yes", "retry ocr", "reload"])
def test_an_order_that_was_carried_out_says_so(
    server: ControlServer, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert main(line.split()) == 0
    kind = type(QUESTIONS[line])
    assert capsys.readouterr().out == f"{ANSWERS[kind].message}\n"  # type: ignore[union-attr]


def test_status_shows_models_and_what_needs_attention(
    server: ControlServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "speech-detection" in out
    assert "-> superbrain rollback speech-detection" in out


def test_text_into_a_pipe_has_no_spaces_at_line_ends_and_no_colour(
    server: ControlServer, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["status"])
    out = capsys.readouterr().out
    assert all(line == line.rstrip() for line in out.splitlines())
    assert "\x1b" not in out


JSON: dict[str, Any] = {
    "status --json": busy_health(),
    "history --json": sample_transitions(),
    "report ocr --json": sample_report(),
}


@pytest.mark.parametrize(("line", "value"), JSON.items(), ids=JSON.keys())
def test_a_program_gets_the_structure_itself(
    server: ControlServer, capsys: pytest.CaptureFixture[str], line: str, value: object
) -> None:
    assert main(line.split()) == 0
    assert json.loads(capsys.readouterr().out) == msgspec.to_builtins(value)


def test_an_empty_history_is_said(
    serving: Callable[[type[Operation], Answer], ControlServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    serving(GetHistory, HistoryReply([]))
    assert main(["history", "ocr"]) == 0
    assert capsys.readouterr().out == "Nothing has happened to 'ocr'.\n"


def test_the_control_option_goes_before_the_environment(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERBRAIN_CONTROL", "ipc:///nowhere")
    assert main(["reload", "--control", server.endpoint]) == 0


# --- asking back ----------------------------------------------------------------------------------


def test_retire_asks_nobody_when_nobody_is_there(
    server: ControlServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["retire", "ocr"]) == 1
    assert "superbrain retire ocr --yes" in capsys.readouterr().err
    assert server.asked == []


@pytest.mark.parametrize(("typed", "asked"), [("ocr", [Retire("ocr")]), ("yes", [])])
def test_retire_wants_the_models_name_typed(
    server: ControlServer,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    asked: list[Operation],
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _prompt: typed)
    main(["retire", "ocr"])
    assert server.asked == asked


# --- answers that are none ------------------------------------------------------------------------


def test_a_refusal_is_told_with_its_mend(
    serving: Callable[[type[Operation], Answer], ControlServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    serving(Rollback, Refusal("NOT_FOUND", "no earlier version of 'ocr' is kept", "retry it"))
    assert main(["rollback", "ocr"]) == 1
    error = capsys.readouterr().err
    assert error == "error: no earlier version of 'ocr' is kept\n  → retry it\n"


def test_a_program_gets_the_refusals_code(
    serving: Callable[[type[Operation], Answer], ControlServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    serving(GetReport, Refusal("NOT_FOUND", "no model 'ocr'"))
    assert main(["report", "ocr", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "NOT_FOUND"


WRONG: dict[str, Answer] = {
    "not JSON": b"\xff",
    "an unknown kind": b'{"kind": "surprise"}',
    "another kind": Outcome("done"),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_an_answer_to_another_question_is_an_error(
    serving: Callable[[type[Operation], Answer], ControlServer],
    capsys: pytest.CaptureFixture[str],
    answer: Answer,
) -> None:
    serving(GetHealth, answer)
    assert main(["status"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_newer_daemon_may_say_more_than_this_version_knows(
    serving: Callable[[type[Operation], Answer], ControlServer],
) -> None:
    reply = msgspec.to_builtins(HealthReply(sample_health()))
    reply["health"]["news"] = reply["news"] = {"from": "the future"}
    serving(GetHealth, msgspec.json.encode(reply))
    assert main(["status"]) == 0


# --- nobody there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("left_behind", [False, True], ids=["no socket", "socket left behind"])
def test_a_daemon_that_does_not_run_is_said_at_once(tmp_path: Path, left_behind: bool) -> None:
    path = tmp_path / "control.sock"
    if left_behind:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    with pytest.raises(NotRunning, match="superbraind is not running") as caught:
        ControlClient(f"ipc://{path}", timeout_s=60).ask(GetHealth(), HealthReply)
    for road in ("systemctl start superbraind", "--root DIR", "--control", "SUPERBRAIN_CONTROL"):
        assert road in caught.value.mend


def test_a_daemon_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(NoAnswer, match=r"did not answer on .* within 0\.05 s"):
            ControlClient(f"ipc://{path}", timeout_s=0.05).ask(GetHealth(), HealthReply)


def test_health_without_a_daemon_is_critical(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["health", "--control", f"ipc://{tmp_path}/control.sock"]) == 2
    assert capsys.readouterr().out.startswith("CRITICAL - superbraind is not running")


@contextlib.contextmanager
def being_nobody() -> Iterator[None]:
    """Give up, for a while, what root may do."""
    groups, nobody = os.getgroups(), pwd.getpwnam("nobody")
    os.setgroups([])
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_user_who_may_not_is_told_so(server: ControlServer) -> None:
    Path(server.endpoint.removeprefix("ipc://")).chmod(0o660)
    with being_nobody(), pytest.raises(NotPermitted, match="may not use the control socket") as no:
        ControlClient(server.endpoint).ask(GetHealth(), HealthReply)
    assert "sudo" in no.value.mend


def test_an_endpoint_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--control", "nonsense"]) == 1
    assert "expected something like ipc://" in capsys.readouterr().err


# --- keeping it on the screen ---------------------------------------------------------------------


def test_watching_goes_on_while_the_daemon_is_away(tmp_path: Path) -> None:
    console = Console(width=120, color_system=None)
    server = ControlServer(tmp_path / "control.sock", ANSWERS)
    pictures: list[str] = []

    def update(view: RenderableType, *, refresh: bool) -> None:
        with console.capture() as captured:
            console.print(view)
        pictures.append(captured.get())

    def pause(_seconds: float) -> None:
        if len(pictures) == 3:
            raise KeyboardInterrupt
        if len(pictures) == 2:
            server.stop()

    with pytest.raises(KeyboardInterrupt), server:
        follow(update, console, ControlClient(server.endpoint), sample_health(), pause)
    assert pictures[0] == pictures[1]
    assert pictures[2].startswith("superbraind is not running")
    assert "speech-detection" in pictures[2]


# --- a reader that goes away ----------------------------------------------------------------------


def test_a_reader_that_goes_away_ends_it_quietly(server: ControlServer) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "superbrain.cli.main", "status", "--json"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("words", [["status"], ["top", "--once"]])
def test_a_terminal_without_unicode_is_shown_what_it_can_spell(
    server: ControlServer, words: list[str]
) -> None:
    command = [sys.executable, "-m", "superbrain.cli.main", *words]
    narrow = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "40"}
    ended = subprocess.run(command, capture_output=True, check=False, env=narrow)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"?" in ended.stdout
