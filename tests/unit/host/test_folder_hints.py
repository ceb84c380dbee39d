"""Hints about a folder: where the kernel has none to give, whoever wanted them goes on without."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import Observer

from superbrain.host import folder_hints as module
from superbrain.host.folder_hints import folder_hints


@pytest.mark.parametrize(("step", "number"), [("schedule", errno.EMFILE), ("start", errno.ENOSPC)])
def test_a_host_without_notifications_left_is_looked_at_every_few_seconds(
    step: str,
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:  # noqa: ANN401 - whatever it is called with
        raise OSError(number, os.strerror(number))

    async def scene() -> bool:
        with folder_hints(tmp_path, asyncio.get_running_loop(), asyncio.Event()):
            return True

    said: list[str] = []
    monkeypatch.setattr(Observer, step, refuse)
    monkeypatch.setattr(module.log, "warning", lambda text, *words: said.append(text % words))
    assert asyncio.run(scene())
    assert "looking every few seconds instead" in "".join(said)
