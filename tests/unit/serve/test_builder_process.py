"""The one who tells how far a build is: a build never fails for want of it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from superbrain.domain.ctl_build import ToBuilder
from superbrain.serve.builder_process import _Teller
from superbrain.serve.ctl_channel import CtlChannel


@pytest.fixture
def channel() -> Iterator[CtlChannel[Any]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield CtlChannel(ours, msgspec.msgpack.Decoder(ToBuilder))


def test_a_build_goes_on_where_no_thread_can_be_started(
    channel: CtlChannel[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with _Teller(channel, "main") as teller:
        teller.note("tactics", 50.0)
    line = json.loads(capfd.readouterr().err)
    assert (line["event"], line["error"]) == ("build_untold", "can't start new thread")


def test_what_went_wrong_with_a_build_is_told_even_where_the_thread_never_began(
    channel: CtlChannel[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    with pytest.raises(MemoryError, match="no more of it"), _Teller(channel, "main"):
        raise MemoryError("no more of it")


def test_it_has_ended_when_the_build_has(channel: CtlChannel[Any]) -> None:
    with _Teller(channel, "main") as teller:
        thread = teller._thread
    assert not thread.is_alive()
