"""What children inherit of the daemon's environment."""

from __future__ import annotations

import pytest

from superbrain.deploy.child import _environment

THE_DAEMONS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID", "OTEL_X")
ANYBODYS = ("CREDENTIALS_DIRECTORY", "PATH", "LD_LIBRARY_PATH")


def test_children_cannot_speak_for_the_daemon_and_find_its_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (*THE_DAEMONS, *ANYBODYS):
        monkeypatch.setenv(name, name.lower())
    inherited = _environment()

    assert not inherited.keys() & set(THE_DAEMONS)
    assert {name: inherited[name] for name in ANYBODYS} == {name: name.lower() for name in ANYBODYS}
