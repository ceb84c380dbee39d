"""Orders and the life of bundles in the audit trail, with who gave them; strangers give none."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.domain import operations as op
from tests.support.appliance import Appliance
from tests.support.releases import go_live
from tests.support.trust import put

pytestmark = [pytest.mark.integration, pytest.mark.fault]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("running")) as appliance:
        appliance.root.chmod(0o755)
        yield appliance


def entries(appliance: Appliance) -> list[tuple[str, str, str]]:
    found = appliance.ask(op.GetAudit(10_000), op.AuditReply).entries
    return [(entry.action, entry.subject, entry.outcome) for entry in reversed(found)]


def test_every_order_is_in_the_trail_with_who_gave_it(running: Appliance) -> None:
    running.ask(op.Rollback("nobody"), op.Refusal)
    running.ask(op.GetHealth(), op.HealthReply)
    newest = running.ask(op.GetAudit(2), op.AuditReply).entries
    assert [(entry.subject, entry.outcome) for entry in newest] == [
        ("rollback nobody", "refused"),
        ("rollback nobody", "asked"),
    ]
    for entry in newest:
        assert entry.peer is not None
        assert (entry.peer.uid, entry.peer.pid) == (os.geteuid(), os.getpid())


def test_the_life_of_a_bundle_is_in_the_trail(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        go_live(appliance, 2)
        appliance.ask(op.Rollback("adder"), op.Outcome)
        put(appliance.inbox, "bad.sbb", b"no bundle" * 100)
        appliance.refusal("bad.sbb")
        appliance.wait_for(
            lambda: (
                ("version_ended", "adder 1.0.0", "retired") in entries(appliance)
                and ("bundle_refused", "bad.sbb", "refused") in entries(appliance)
            ),
            "the entries",
        )
        expected = [
            ("bundle_accepted", "adder 1.0.0", "accepted"),
            ("version_changed", "adder 1.0.0", "serves"),
            ("bundle_accepted", "adder 2.0.0", "accepted"),
            ("version_changed", "adder 2.0.0", "serves"),
            ("order", "rollback adder", "asked"),
            ("version_changed", "adder 2.0.0", "rolled back"),
            ("order", "rollback adder", "carried out"),
        ]
        found = [entry for entry in entries(appliance) if entry in expected]
        assert found == expected

        # an edit is found at the next start, and nothing stops serving for it
        appliance.stop()
        trail = appliance.root / "state" / "audit.log"
        assert trail.stat().st_mode & 0o777 == 0o600
        trail.write_bytes(trail.read_bytes().replace(b"rollback adder", b"rollback other", 1))
        appliance.start()
        appliance.wait_live("adder", "1.0.0")
        found_problem = appliance.problem("audit")
        assert found_problem is not None
        assert "was changed" in found_problem.message
        verdict = appliance.ask(op.VerifyAudit(), op.AuditVerdict)
        assert len(verdict.faults) == 1


def zmtp_hello(peer_address: str) -> bytes:
    """What a client says first, with a property in which it claims to be somebody."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)

    def prop(name: bytes, value: bytes) -> bytes:
        return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value

    ready = b"\x05READY" + prop(b"Socket-Type", b"REQ")
    ready += prop(b"Identity", b"") + prop(b"Peer-Address", peer_address.encode())
    return greeting + b"\x04" + bytes([len(ready)]) + ready


def converse(path: Path, hello: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(30)
        stream.connect(str(path))
        stream.sendall(hello)
        hear(stream, b"Identity")
        question = b'{"kind":"reload"}'
        stream.sendall(b"\x01\x00\x00" + bytes([len(question)]) + question)
        return hear(stream, b"}")


def hear(stream: socket.socket, until: bytes) -> bytes:
    heard = b""
    while until not in heard and (part := stream.recv(4096)):
        heard += part
    return heard


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_stranger_is_refused_whatever_the_mode_and_whatever_it_claims(
    running: Appliance,
) -> None:
    path = Path(running.control_endpoint.removeprefix("ipc://"))
    assert path.stat().st_mode & 0o077 == 0
    assert b'"outcome"' in converse(path, zmtp_hello("localhost:1:1:1"))
    path.chmod(0o666)
    nobody = pwd.getpwnam("nobody")
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    try:
        heard = converse(path, zmtp_hello("localhost:0:0:1"))
    finally:
        os.seteuid(0)
        os.setegid(0)
        path.chmod(0o600)
    assert b"PERMISSION_DENIED" in heard
    assert ("stranger", "control socket", "refused") in entries(running)
    newest = running.ask(op.GetAudit(1), op.AuditReply).entries[0]
    assert newest.peer is not None
    assert newest.peer.uid == nobody.pw_uid
