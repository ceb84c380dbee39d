"""Every bad bundle there is a case for, dropped into one real appliance whose model is under load.

Each is refused for its own reason, in words that say what was expected and found. Meanwhile the
live version misses no request, and afterwards nothing is left of any of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.deploy.journal import Journal
from superbrain.domain import operations as op
from tests.corpus.draft import Draft
from tests.corpus.dropping import drop_all, model_of
from tests.corpus.every_case import CASES, EXECUTED, SECTIONS
from tests.support.appliance import Appliance
from tests.support.load import Load
from tests.support.releases import go_live

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]
PAUSE_S = 0.2  # between bursts of requests: most of the machine is for what is dropped


class Aftermath:
    """What was found when all cases had been dropped."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.faults: list[str] = []
        self.answered = 0
        self.kept: list[Path] = []
        self.floors: dict[str, int] = {}
        self.restarted = False
        self.trust_changed = False
        self.truncated: dict[str, str] = {}
        self.canaries: list[Path] = []


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """Drop every case, and look at what is left."""
    folder = tmp_path_factory.mktemp("corpus")
    found = Aftermath()
    with Appliance(folder) as appliance:
        go_live(appliance, 1)
        pid = appliance.health().process.pid
        trust = digest_of(appliance.root / "trust")
        with Load(appliance.client, clients=2, pause_s=PAUSE_S) as load:
            found.notes = drop_all(appliance, folder)
            found.truncated = truncate(appliance, folder)
        found.faults = [*load.failed, *load.mixed, *load.backwards]
        found.answered = load.answered
        found.restarted = appliance.health().process.pid != pid
        found.trust_changed = digest_of(appliance.root / "trust") != trust
        store = appliance.root / "state/store"
        appliance.wait_for(lambda: not list((store / ".staging").iterdir()), "staging to be empty")
        found.kept = list((store / "bundles").iterdir())
        found.canaries = list(appliance.root.rglob("canary*"))
        appliance.stop()
        journal = Journal(appliance.root / "state/journal.sqlite")
        found.floors = {name: journal.floor(name).sequence for name in journal.models()}
        journal.close()
        yield found


def truncate(appliance: Appliance, folder: Path) -> dict[str, str]:
    """Drop a good bundle cut off behind every block; say what the host makes of each."""
    signing = appliance.author.signing
    data = Draft(folder, signing, signing, "cut").pack()
    names = []
    for end in range(0, len(data), 512):
        names.append(f"cut-{end}.sbb")
        (appliance.inbox / names[-1]).write_bytes(data[:end])

    def seen() -> dict[str, str]:
        health = appliance.ask(op.GetHealth(), op.HealthReply).health
        return {one.name: one.outcome for one in health.inbox if one.name.startswith("cut-")}

    appliance.wait_for(lambda: len(seen()) == len(names), "every cut bundle to be looked at")
    return seen()


def digest_of(folder: Path) -> str:
    """One digest over all files of a folder, their names and their modes."""
    sha256 = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        sha256.update(f"{path.relative_to(folder)} {path.stat().st_mode}".encode())
        sha256.update(path.read_bytes() if path.is_file() else b"")
    return sha256.hexdigest()


# --- each case ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_for_its_own_reason(name: str, aftermath: Aftermath) -> None:
    case, note = CASES[name], aftermath.notes[name]
    code = note.partition("(")[2].partition(")")[0]
    assert code in case.codes, note
    assert case.says in note
    assert "Traceback" not in note


def test_the_document_tells_how_many_there_are() -> None:
    document = (Path(__file__).parents[2] / "docs/corpus.md").read_text()
    assert f"{len(CASES)} bad bundles" in document
    for section in SECTIONS:
        count = sum(case.section == section for case in CASES.values())
        assert f"| {section} | {count} |" in document


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 120
    assert {case.section for case in CASES.values()} == set(SECTIONS)
    assert all(case.note and case.says for case in CASES.values())


# --- what is left ---------------------------------------------------------------------------------


def test_the_live_version_missed_no_request(aftermath: Aftermath) -> None:
    assert aftermath.faults == []
    assert aftermath.answered > 1000


def test_the_daemon_was_the_same_all_the_time(aftermath: Aftermath) -> None:
    assert not aftermath.restarted


def test_trust_is_as_it_was(aftermath: Aftermath) -> None:
    assert not aftermath.trust_changed


def test_what_was_refused_unread_is_not_in_the_store_and_raised_no_floor(
    aftermath: Aftermath,
) -> None:
    executed = {model_of(case) for case in CASES.values() if case.section in EXECUTED}
    raised = {name for name, floor in aftermath.floors.items() if floor and name != "adder"}
    assert raised <= executed
    assert aftermath.floors["adder"] == 1
    assert len(aftermath.kept) <= 1 + len(executed)


def test_nothing_was_executed_that_was_not_to_be(aftermath: Aftermath) -> None:
    assert aftermath.canaries == []


def test_a_bundle_cut_off_anywhere_waits_for_the_rest(aftermath: Aftermath) -> None:
    assert len(aftermath.truncated) > 10
    assert set(aftermath.truncated.values()) <= {"waiting", "stalled", "ignored"}
