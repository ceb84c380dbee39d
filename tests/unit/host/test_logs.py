"""Log lines: one JSON object each, whatever is put into them."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from superbrain.host import logs
from superbrain.host.events import Event

LOGGER = logging.getLogger("superbrain.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("info", stream)
    yield stream
    root.handlers[:], root.level = handlers, level
    logging.getLogger("superbrain").setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)


def only_line(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    decoded = json.loads(line)
    assert isinstance(decoded, dict)
    return decoded


def test_an_event_is_one_line_with_its_name_and_facts(stream: io.StringIO) -> None:
    logs.event(LOGGER, Event.WORKER_DIED, logging.WARNING, model="ocr", exit_code=-11)
    line = only_line(stream)
    del line["at"]
    expected = {"level": "warning", "event": "worker_died", "model": "ocr", "exit_code": -11}
    assert line == expected


def test_time_is_utc_to_the_millisecond(stream: io.StringIO) -> None:
    logs.event(LOGGER, Event.DAEMON_READY)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", only_line(stream)["at"])


def test_a_level_below_the_configured_one_writes_nothing(stream: io.StringIO) -> None:
    logs.event(LOGGER, Event.DAEMON_READY, logging.DEBUG)
    assert stream.getvalue() == ""


def test_debug_is_for_our_own_lines_not_for_those_of_libraries(stream: io.StringIO) -> None:
    logs.set_level("debug")
    logging.getLogger("watchdog").debug("in-event")
    assert stream.getvalue() == ""
    LOGGER.debug("ours")
    assert only_line(stream)["level"] == "debug"


def test_what_a_library_logs_is_an_event_called_log(stream: io.StringIO) -> None:
    logging.getLogger("library").warning("%d of %d", 1, 2)
    line = only_line(stream)
    assert (line["event"], line["logger"], line["message"]) == ("log", "library", "1 of 2")


def test_wrong_arguments_of_a_foreign_log_call_cost_nothing() -> None:
    record = logging.LogRecord("library", logging.INFO, "", 1, "%d apples", ("three",), None)
    assert "do not fit" in json.loads(logs.JsonLines().format(record))["message"]


def test_a_newline_in_a_value_stays_inside_its_line(stream: io.StringIO) -> None:
    logs.event(LOGGER, Event.BUNDLE_REFUSED, message="one\ntwo", reason="three\nfour")
    assert only_line(stream)["reason"] == "three\nfour"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def endless() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


ODD_VALUES: dict[str, Any] = {
    "bytes": b"\xff\x00",
    "path": Path("/inbox"),
    "error": ValueError("bad"),
    "lone surrogate": "a\ud800b",
    "not a number": math.nan,
    "huge integer": 10**30,
    "time": dt.timedelta(seconds=3),
    "set of mixed types": {1, "a", None},
    "dictionary with odd keys": {(1, 2): "x"},
    "a list inside itself": endless(),
    "unprintable": Unprintable(),
    "class": Unprintable,
}


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES.keys())
def test_an_odd_value_costs_neither_the_line_nor_its_other_facts(
    stream: io.StringIO, value: object
) -> None:
    logs.event(LOGGER, Event.BUNDLE_TAKEN, odd=value, name="ocr")
    line = only_line(stream)
    assert line["name"] == "ocr"
    assert "odd" in line


def test_a_fact_cannot_take_the_place_of_the_events_name(stream: io.StringIO) -> None:
    logs.event(LOGGER, Event.BUNDLE_TAKEN, event="forged")
    assert only_line(stream)["event"] == "bundle_taken"


def test_a_traceback_is_part_of_its_line(stream: io.StringIO) -> None:
    logs.event(LOGGER, Event.TASK_FAILED, logging.ERROR, exc_info=OSError("gone"))
    assert only_line(stream)["traceback"].endswith("OSError: gone")


def test_every_line_names_the_process(stream: io.StringIO) -> None:
    logs.configure("info", stream, process="gateway")
    logs.event(LOGGER, Event.GATEWAY_STARTED)
    assert only_line(stream)["process"] == "gateway"


def test_an_unknown_level_is_refused(stream: io.StringIO) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure("loud", stream)


def test_lines_for_the_journal_begin_with_their_priority(
    stream: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w+", encoding="utf-8") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.configure("info", journal)
        logs.event(LOGGER, Event.GATEWAY_DIED, logging.ERROR)
        journal.seek(0)
        assert journal.read().startswith('<3>{"at":')
