"""Who is at the other end of the control socket; whoever cannot be named is nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from superbrain.app import control_peer
from superbrain.app.control_peer import (
    ControlError,
    may_give_orders,
    peer_of,
    require_credentials,
)
from superbrain.domain.audit import Peer


class Frame:
    """A frame that says what libzmq would say."""

    def __init__(self, address: object) -> None:
        self._address = address

    def get(self, name: str) -> object:
        assert name == "Peer-Address"
        if isinstance(self._address, Exception):
            raise self._address
        return self._address


def test_a_peer_is_named_by_the_kernels_numbers() -> None:
    assert peer_of(Frame("localhost:1000:100:4711")) == Peer(1000, 100, 4711)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    ["", "localhost", "127.0.0.1", "::1", "localhost:0:0", "localhost:a:0:1", None, ValueError()],
)
def test_whoever_cannot_be_named_is_nobody(address: object) -> None:
    peer = peer_of(Frame(address))  # type: ignore[arg-type]
    assert peer is None
    assert not may_give_orders(peer)


def test_only_root_and_the_services_user_may_give_orders() -> None:
    assert may_give_orders(Peer(0, 5, 1))
    assert may_give_orders(Peer(os.geteuid(), 5, 1))
    assert not may_give_orders(Peer(os.geteuid() + 1, 0, 1))


def test_this_libzmq_names_peers(tmp_path: Path) -> None:
    require_credentials(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_libzmq_that_names_nobody_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_peer, "peer_of", lambda _frame: None)
    with pytest.raises(ControlError, match="expected libzmq to name"):
        require_credentials(tmp_path)


def test_a_runtime_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="cannot be opened"):
        require_credentials(tmp_path / "nowhere")
