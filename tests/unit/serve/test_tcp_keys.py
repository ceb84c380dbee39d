"""The keys of the TCP face: the server's own, and those that the folder of clients names."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from superbrain.host.guarded import NotGuarded
from superbrain.serve.tcp_keys import read_clients, read_server_key
from superbrain.wire.curve import Certificate, certificate_text
from superbrain.wire.errors import InvalidArgument, SuperbrainError


def pair() -> Certificate:
    return Certificate(*(half.decode() for half in zmq.curve_keypair()))


def written(path: Path, certificate: Certificate, mode: int) -> Path:
    path.write_text(certificate_text(certificate, path.stem))
    path.chmod(mode)
    return path


def test_the_servers_pair_is_read_when_it_is_its_owners_alone(tmp_path: Path) -> None:
    server = pair()
    assert read_server_key(written(tmp_path / "server.key", server, 0o600)) == server


@pytest.mark.parametrize(
    ("mode", "secret", "found"),
    [
        (0o640, True, "readable and writable for its owner only"),
        (0o600, False, "found the public half alone"),
    ],
)
def test_another_file_is_refused_by_name(
    tmp_path: Path, mode: int, *, secret: bool, found: str
) -> None:
    server = pair()
    path = written(tmp_path / "server.key", server if secret else Certificate(server.public), mode)
    with pytest.raises(SuperbrainError, match=found) as caught:
        read_server_key(path)
    assert "server.key" in caught.value.message


def test_a_missing_or_garbled_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotGuarded, match="No such file"):
        read_server_key(tmp_path / "server.key")
    (tmp_path / "server.key").write_bytes(bytes(range(256)))
    (tmp_path / "server.key").chmod(0o600)
    with pytest.raises(InvalidArgument, match="expected a CURVE certificate"):
        read_server_key(tmp_path / "server.key")


def test_clients_are_named_by_their_files(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    camera, gate = pair(), pair()
    written(tmp_path / "camera.pub", Certificate(camera.public), 0o644)
    written(tmp_path / "gate.pub", Certificate(gate.public), 0o644)
    (tmp_path / "notes.txt").write_text("not a key")
    assert read_clients(tmp_path) == {camera.public: "camera", gate.public: "gate"}


def test_two_names_for_one_key_are_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    camera = Certificate(pair().public)
    written(tmp_path / "camera.pub", camera, 0o644)
    written(tmp_path / "other.pub", camera, 0o644)
    with pytest.raises(InvalidArgument, match="found that of 'camera'"):
        read_clients(tmp_path)
