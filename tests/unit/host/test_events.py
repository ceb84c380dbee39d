"""Event names: stable, explained, and the only ones that the source uses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import superbrain
from superbrain.host.events import Event

SOURCE = Path(superbrain.__file__).parent


def literal_event_names() -> Iterator[tuple[str, str]]:
    """File and name of every `event(logger, "name", …)` in the source."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and len(node.args) > 1):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            name = node.args[1]
            is_text = isinstance(name, ast.Constant) and isinstance(name.value, str)
            if called == "event" and is_text:
                yield path.name, name.value  # type: ignore[attr-defined]


@pytest.mark.parametrize("event", Event)
def test_a_name_is_lower_case_words(event: Event) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", event)


@pytest.mark.parametrize("event", Event)
def test_a_name_is_explained_by_one_sentence(event: Event) -> None:
    assert re.fullmatch(r"[A-Zh].*[a-z]\.", event.meaning)


def test_a_member_is_its_name() -> None:
    assert f"{Event.WORKER_DIED}" == "worker_died"


def test_every_name_written_out_in_the_source_is_listed() -> None:
    unknown = [(path, name) for path, name in literal_event_names() if name not in set(Event)]
    assert unknown == []


def test_every_name_is_logged_somewhere() -> None:
    source = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "events.py")
    silent = [
        event.name
        for event in Event
        if f"Event.{event.name}" not in source and f'"{event}"' not in source
    ]
    assert silent == []
