"""Records for the journal: the protocol's encoding, the sentence for people, the fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbrain.host import journald


def fields_of(data: bytes) -> dict[str, str]:
    """Decode as the protocol says, independently of the encoder."""
    fields: dict[str, str] = {}
    while data:
        name, _, data = data.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
        else:
            size = int.from_bytes(data[:8], "little")
            key, value = name, data[8 : 8 + size]
            assert data[8 + size : 9 + size] == b"\n"
            data = data[9 + size :]
        fields[key.decode()] = value.decode()
    return fields


def test_every_fact_is_a_field_and_the_message_is_for_people() -> None:
    line = {"at": "now", "level": "warning", "event": "worker_died", "model": "ocr", "code": -9}
    assert fields_of(journald.record(4, line)) == {
        "MESSAGE": "worker_died (model=ocr code=-9)",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "superbraind",
        "SUPERBRAIN_EVENT": "worker_died",
        "SUPERBRAIN_MODEL": "ocr",
        "SUPERBRAIN_CODE": "-9",
    }


def test_what_a_child_told_is_unfolded() -> None:
    line = {"event": "lane_closed", "child": "worker 3", "told": {"error": "bad", "child": "x"}}
    fields = fields_of(journald.record(6, line))
    assert fields["SUPERBRAIN_ERROR"] == "bad"
    assert fields["SUPERBRAIN_CHILD"] == "worker 3"
    assert fields["SUPERBRAIN_TOLD_CHILD"] == "x"
    assert "SUPERBRAIN_TOLD" not in fields


def test_a_line_that_a_child_printed_is_the_message() -> None:
    line = {"event": "child_output", "child": "gateway", "told": "hello world"}
    fields = fields_of(journald.record(6, line))
    assert fields["MESSAGE"] == "child_output: hello world (child=gateway)"
    assert fields["SUPERBRAIN_TOLD"] == "hello world"


def test_a_value_of_several_lines_keeps_them_and_starts_no_field() -> None:
    line = {"event": "log", "message": "a\nPRIORITY=0", "path": "x\ny"}
    fields = fields_of(journald.record(6, line))
    assert fields["PRIORITY"] == "6"
    assert fields["SUPERBRAIN_PATH"] == "x\ny"
    assert fields["MESSAGE"].startswith("log: a\nPRIORITY=0")


def test_a_traceback_follows_the_sentence() -> None:
    fields = fields_of(journald.record(3, {"event": "task_failed", "traceback": "T:\n  x"}))
    assert fields["MESSAGE"] == "task_failed\nT:\n  x"


@pytest.mark.parametrize(
    ("name", "field"),
    [("exit-code", "SUPERBRAIN_EXIT_CODE"), ("öl", "SUPERBRAIN__L"), ("n" * 99, None)],
)
def test_names_of_fields_are_what_the_journal_takes(name: str, field: str | None) -> None:
    fields = fields_of(journald.record(6, {"event": "log", name: 1}))
    found = [key for key, value in fields.items() if value == "1"]
    assert len(found) == 1
    assert len(found[0]) <= 64
    assert field is None or found == [field]


@pytest.mark.parametrize("value", ["\ud800", 1 << 70, object(), {1, 2}, float("nan"), None])
def test_an_odd_value_does_not_cost_the_record(value: object) -> None:
    fields = fields_of(journald.record(6, {"event": "log", "odd": value}))
    assert fields["SUPERBRAIN_EVENT"] == "log"


def test_without_a_journal_the_caller_is_told(tmp_path: Path) -> None:
    assert not journald.send(6, {"event": "log"}, tmp_path / "nobody")
