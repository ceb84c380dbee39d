"""CURVE certificates as text: what pyzmq writes and reads is what we read and write."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st

from superbrain.wire.curve import (
    Certificate,
    certificate_text,
    is_key,
    parse_certificate,
    with_secret,
)
from superbrain.wire.errors import InvalidArgument

PAIR = Certificate(*(half.decode() for half in zmq.curve_keypair()))


def test_what_is_written_is_read_again() -> None:
    assert parse_certificate(certificate_text(PAIR, "camera"), "f") == PAIR
    public = Certificate(PAIR.public)
    assert parse_certificate(certificate_text(public, "camera"), "f") == public


def test_certificates_of_pyzmq_are_read(tmp_path: Path) -> None:
    public_file, secret_file = zmq.auth.create_certificates(tmp_path, "camera")
    public, secret = zmq.auth.load_certificate(secret_file)
    assert secret is not None
    found = parse_certificate(Path(secret_file).read_text(), "f")
    assert found == Certificate(public.decode(), secret.decode())
    assert parse_certificate(Path(public_file).read_text(), "f").public == public.decode()


def test_pyzmq_reads_what_is_written(tmp_path: Path) -> None:
    file = tmp_path / "camera.key"
    file.write_text(certificate_text(PAIR, "camera"))
    assert zmq.auth.load_certificate(file) == (PAIR.public.encode(), PAIR.secret.encode())


@pytest.mark.parametrize(
    "text", ["", "curve\n", 'curve\n    public-key = "short"\n', "ssh-ed25519 AAAAC3Nza"]
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"camera\.pub: expected a CURVE certificate"):
        parse_certificate(text, "camera.pub")


def test_a_broken_secret_is_not_taken_for_a_public_half() -> None:
    text = certificate_text(PAIR._replace(secret="x" * 39 + "~"), "camera")
    with pytest.raises(InvalidArgument, match="expected a secret key of 40 characters"):
        parse_certificate(text, "camera.key")


def test_a_public_half_has_no_secret() -> None:
    with pytest.raises(InvalidArgument, match=r"Name the file NAME\.key"):
        with_secret(Certificate(PAIR.public), "camera.pub")


@given(st.text())
def test_no_text_makes_anything_but_a_certificate_or_the_typed_error(text: str) -> None:
    try:
        found = parse_certificate(text, "f")
    except InvalidArgument:
        return
    assert is_key(found.public)
