"""What is taken out of texts, and what stays readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from superbrain.cli.support.redact import LEFT_OUT, Redactor, known_secrets
from superbrain.wire.curve import Certificate, certificate_text

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ\n-----END PRIVATE KEY-----"
SECRET = "hunter2hunter2"

HIDDEN = [
    f"API_TOKEN={SECRET}",
    f"password: {SECRET}",
    f"client_secret = '{SECRET}'",
    f'{{"apiKey": "{SECRET}", "a": 1}}',
    json.dumps({"MESSAGE": json.dumps({"token": SECRET})}),
    f"Authorization: Bearer {SECRET}",
    f"https://user:{SECRET}@example.org/x",
    f'    secret-key = "{SECRET}"',
    f"--passphrase={SECRET} --quiet",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_what_is_named_like_a_secret_is_left_out(text: str) -> None:
    found = Redactor([]).text(text)
    assert SECRET not in found
    assert LEFT_OUT in found


def test_a_text_that_is_one_long_word_takes_no_longer_for_it() -> None:
    word = "a" * (1 << 20)
    assert Redactor([]).text(f"{word} token={SECRET}") == f"{word} token={LEFT_OUT}"


def test_json_stays_json() -> None:
    text = json.dumps({"token": SECRET, "max_tokens": 512, "told": [{"password": "x" * 9}]})
    found = json.loads(Redactor([]).text(text))
    assert found == {"token": LEFT_OUT, "max_tokens": 512, "told": [{"password": LEFT_OUT}]}


@pytest.mark.parametrize("text", [PEM, json.dumps(PEM), f"x {PEM[:60]}"])
def test_a_private_key_is_left_out_whole_cut_or_escaped(text: str) -> None:
    assert "MC4CAQAwBQ" not in Redactor([]).text(text)


PLAIN = [
    'tcp.secret_key = "/etc/superbrain/tcp/server.key"',
    "the key 8fae12 is revoked",
    "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----",
    "no secret was found",
]


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor([]).text(text) == text


def test_a_known_secret_is_found_wherever_it_stands() -> None:
    assert SECRET not in Redactor([SECRET]).text(f"it said {SECRET}!")
    quoted = 'a"b\\c' * 3
    assert json.dumps(quoted)[1:-1] not in Redactor([quoted]).text(json.dumps({"x": quoted}))


def test_the_environment_of_a_unit_is_left_out() -> None:
    unit = f"[Service]\nEnvironment=A={SECRET} \\\n  B=more{SECRET}\nUser=superbrain\n"
    found = Redactor([]).unit(unit)
    assert SECRET not in found
    assert "User=superbrain" in found


def test_a_configuration_tells_where_a_secret_lies_and_not_what_it_is() -> None:
    found = Redactor([]).values(
        {"tcp.secret_key": "/etc/x", "otel.token": SECRET, "otel.endpoint": "http://u:longer1@h"}
    )
    assert found == {
        "tcp.secret_key": "/etc/x",
        "otel.token": LEFT_OUT,
        "otel.endpoint": f"http://{LEFT_OUT}@h",
    }


def test_what_this_host_has_is_known(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    path.write_text(certificate_text(Certificate("P" * 40, "S" * 40), "x"))
    assert set(known_secrets({"MY_TOKEN": "abc", "PATH": "/bin"}, path)) == {"abc", "S" * 40}
    assert known_secrets({}, tmp_path / "none") == []
