"""Every case dropped into an appliance, a few under way at a time, and what it said of each."""

from __future__ import annotations

from collections import deque
from functools import partial
from pathlib import Path

from superbrain.bundle.keys import SigningKey
from superbrain.deploy.journal import Journal
from superbrain.domain.deployment import State
from tests.corpus.draft import Draft
from tests.corpus.every_case import CASES, EXECUTED, Case
from tests.support.appliance import Appliance
from tests.support.bundles import sign_key

AT_ONCE = 16
LOOK_AGAIN_S = 0.2


def model_of(case: Case) -> str:
    return f"bad-{case.name}"[:64].rstrip("-")


def drop_all(appliance: Appliance, folder: Path) -> dict[str, str]:
    """Drop every case, `AT_ONCE` under way at any time; what was said of each, "" where nothing.

    Those that hang come behind all that a worker must be had for, and before all that is refused
    unread: nobody waits for them, nor for the host that tries them again.
    """
    stranger = sign_key(folder / "stranger", "stranger").signing
    waiting = deque(sorted(CASES.values(), key=_turn))
    notes: dict[str, str] = {}
    under_way: list[Case] = []
    while waiting or under_way:
        while waiting and len(under_way) < AT_ONCE:
            under_way.append(waiting.popleft())
            drop(appliance, folder, under_way[-1], stranger)
        said = partial(outcomes, appliance, under_way)
        try:
            notes |= appliance.wait_for(said, "a reason", look_again_s=LOOK_AGAIN_S)
        except AssertionError:  # none within a minute: each says so in its own test
            notes |= {case.name: "" for case in under_way}
        under_way = [case for case in under_way if case.name not in notes]
    return notes


def _turn(case: Case) -> tuple[bool, bool]:
    return case.section not in EXECUTED, "TIMED_OUT" in case.codes


def drop(appliance: Appliance, folder: Path, case: Case, stranger: SigningKey) -> None:
    draft = Draft(folder, appliance.author.signing, stranger, model_of(case))
    case.bend(draft)
    beside = appliance.inbox / f".{case.name}"
    beside.write_bytes(draft.pack())
    beside.rename(appliance.inbox / f"{case.name}.sbb")


def outcomes(appliance: Appliance, cases: list[Case]) -> dict[str, str]:
    """Give what was said of those that are refused or failed: the note, or the reason."""
    journal = Journal(appliance.root / "state/journal.sqlite")
    try:
        said = {case.name: outcome(appliance, case, journal) for case in cases}
    finally:
        journal.close()
    return {name: text for name, text in said.items() if text}


def outcome(appliance: Appliance, case: Case, journal: Journal) -> str:
    """Give the note beside a refused bundle, or why its deployment failed; empty before either."""
    note = appliance.inbox / f"{case.name}.sbb.refused.txt"
    if note.exists():
        return note.read_text()
    tried = [one for one in journal.of_model(model_of(case)) if one.reason is not None]
    ended = [one.reason for one in tried if one.state in (State.FAILED, State.REJECTED)]
    return f"failed ({ended[0].code}). {ended[0].message}" if ended and ended[0] else ""
