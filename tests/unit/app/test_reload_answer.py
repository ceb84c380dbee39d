"""What a reload answers: what was done, and what keeps new bundles out all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from superbrain.app.reload_answer import inbox_problem, reload_answer
from superbrain.domain.health import Problem

NO_KEY = Problem("warning", "trust", "expected a key, found none", "Put one there")
NO_INBOX = Problem("critical", "inbox", "the inbox /x cannot be read: no folder", "Make it")


def test_a_good_reload_says_what_was_done_in_one_line() -> None:
    said = reload_answer(2, [], None, ["log.level holds now"], ["a = 3", "b = 4"])
    assert said == (
        "the trust folder was read again (2 keys) and the inbox is looked through; "
        "log.level holds now; a = 3 needs a restart; b = 4 needs a restart"
    )


def test_trust_that_takes_nothing_new_is_said_with_what_to_do() -> None:
    said = reload_answer(0, [NO_KEY], None, [], [])
    assert said == (
        "the trust folder was read again (0 keys) and the inbox is looked through. "
        "Warning: no new bundle is taken: expected a key, found none. Put one there"
    )


def test_an_inbox_that_cannot_be_looked_through_is_not_said_to_be() -> None:
    said = reload_answer(1, [], NO_INBOX, ["x holds now"], [])
    assert said == (
        "the trust folder was read again (1 key); x holds now. "
        "Warning: no new bundle is taken: the inbox /x cannot be read: no folder. Make it"
    )


def test_both_are_said() -> None:
    said = reload_answer(0, [NO_KEY], NO_INBOX, [], [])
    assert said.count("Warning: no new bundle is taken: ") == 2


def test_a_folder_is_an_inbox(tmp_path: Path) -> None:
    assert inbox_problem(tmp_path) is None


@pytest.mark.parametrize("make", [Path.touch, lambda _path: None], ids=["a file", "nothing"])
def test_a_file_or_nothing_is_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "inbox"
    make(path)
    problem = inbox_problem(path)
    assert problem is not None
    assert f"the inbox {path}" in problem.message
    assert f"install -d {path}" in problem.mend
