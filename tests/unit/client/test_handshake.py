"""Why a gateway lets nobody in: events of the monitor in, a sentence out."""

from __future__ import annotations

import pytest
import zmq

from superbrain.client.endpoint import CurveKeys
from superbrain.client.handshake import Handshake

TCP = "tcp://host:5555"
KEYS = CurveKeys("S" * 40, "P" * 40, "X" * 40)
REACHED = zmq.EVENT_CONNECTED
VAGUE = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


def heard(endpoint: str, curve: CurveKeys | None, *events: int) -> list[str]:
    handshake = Handshake(endpoint, curve)
    return [str(error) for event in events if (error := handshake.event(event)) is not None]


def test_a_refused_key_is_named() -> None:
    (sentence,) = heard(TCP, KEYS, REACHED, zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    assert "does not allow this program's key" in sentence
    assert "P" * 40 in sentence
    assert "X" not in sentence


@pytest.mark.parametrize(
    ("curve", "found"), [(None, "expects CURVE keys"), (KEYS, "does not speak CURVE")]
)
def test_another_mechanism_is_named(curve: CurveKeys | None, found: str) -> None:
    (sentence,) = heard(TCP, curve, REACHED, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
    assert found in sentence


def test_only_several_vague_failures_in_a_row_are_an_answer() -> None:
    assert heard(TCP, KEYS, *[REACHED, VAGUE] * 4) == []
    (sentence,) = heard(TCP, KEYS, *[REACHED, VAGUE] * 5)
    assert "the server's public key is another one" in sentence
    restarted = [REACHED, VAGUE] * 4 + [REACHED, zmq.EVENT_HANDSHAKE_SUCCEEDED]
    assert heard(TCP, KEYS, *restarted, REACHED, VAGUE) == []


def test_a_gateway_that_is_away_is_no_refusal() -> None:
    assert heard(TCP, KEYS, *[zmq.EVENT_DISCONNECTED] * 20) == []
    assert heard("ipc:///run/infer.sock", None, *[REACHED, VAGUE] * 20) == []


def test_a_handshake_that_never_ends_is_suspected_at_the_deadline() -> None:
    handshake = Handshake(TCP, KEYS)
    assert handshake.suspicion() is None
    handshake.event(REACHED)
    assert "does not finish the handshake" in str(handshake.suspicion())
    handshake.event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    assert handshake.suspicion() is None
