"""The trail as rows: every column is there, however narrow the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from superbrain.cli import audit
from superbrain.cli.audit import audit_view
from superbrain.domain.audit import Entry, Peer
from tests.support.reports import NOON


@pytest.mark.parametrize("width", [50, 60, 80, 200])
def test_what_was_done_is_told_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "peer_text", lambda _peer: "root (pid 13932)")
    entry = Entry(7, NOON, "order", "ab" * 32, "rollback ocr", "done", peer=Peer(0, 0, 13932))
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(audit_view(console, [entry]))
    lines = captured.get().splitlines()
    assert lines[0].split() == ["at", "#", "by", "action", "what"]
    assert all(len(line) <= width for line in lines)
