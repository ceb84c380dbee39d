"""Replies: what a client does not take yet is held back in order, up to a limit."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, cast

import pytest
import zmq

from superbrain.serve import replies
from superbrain.serve.replies import Replies


class Router:
    """The part of a ROUTER socket that replies use; `full` and `gone` clients refuse."""

    def __init__(self) -> None:
        self.full: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.taken: list[list[bytes]] = []
        self._parts: list[bytes] = []

    def set(self, option: int, value: int) -> None:
        pass

    def send(self, part: bytes, flags: int, copy: bool) -> None:
        if not self._parts and part in self.full:
            raise zmq.Again(errno.EAGAIN)
        if not self._parts and part in self.gone:
            raise zmq.ZMQError(errno.EHOSTUNREACH)
        self._parts.append(bytes(part))
        if not flags & zmq.SNDMORE:
            self.taken.append(self._parts)
            self._parts = []


@pytest.fixture
def router() -> Iterator[Router]:
    router = Router()
    yield router
    assert not router._parts, "a reply was sent in part"


def on(router: Router) -> Replies:
    return Replies(cast("Any", router))


def test_a_reply_bears_its_envelope_verb_header_and_tensors(router: Router) -> None:
    on(router).send([b"a", b""], b"r", b"{}", [b"1", b"2"])
    assert router.taken == [[b"a", b"", b"SB1r", b"{}", b"1", b"2"]]


def test_replies_to_a_client_that_is_behind_come_later_and_in_order(router: Router) -> None:
    answers = on(router)
    router.full = {b"a"}
    answers.send([b"a"], b"r", b"1")
    router.full = set()
    answers.send([b"a"], b"r", b"2")
    answers.send([b"b"], b"r", b"3")
    assert [parts[2] for parts in router.taken] == [b"3"]
    assert answers.behind
    answers.retry()
    assert [parts[2] for parts in router.taken] == [b"3", b"1", b"2"]
    assert not answers.behind


def test_what_was_held_for_a_client_that_is_gone_is_forgotten(router: Router) -> None:
    answers = on(router)
    router.full = {b"a"}
    answers.send([b"a"], b"r", b"1")
    router.full, router.gone = set(), {b"a"}
    answers.retry()
    assert not answers.behind
    assert answers.dropped == 0


@pytest.mark.parametrize("limit", ["_MAX_HELD_BYTES", "_MAX_HELD_REPLIES"])
def test_beyond_the_limit_replies_are_dropped_and_counted(
    router: Router, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(replies, limit, {"_MAX_HELD_BYTES": 15, "_MAX_HELD_REPLIES": 2}[limit])
    answers = on(router)
    router.full = {b"a"}
    for number in range(3):
        answers.send([b"a"], b"r", str(number).encode())
    assert answers.dropped == 1
    router.full = set()
    answers.retry()
    assert [parts[2] for parts in router.taken] == [b"0", b"1"]
    answers.send([b"a"], b"r", b"free again")
    assert answers.dropped == 1
