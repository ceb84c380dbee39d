"""The journal: what is recorded is there after it is opened again."""

from __future__ import annotations

import datetime as dt
import sqlite3
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from superbrain.deploy.journal import KEPT_NOTES, Floor, Journal
from superbrain.deploy.journal_file import SCHEMA_VERSION, JournalDamaged, JournalError
from superbrain.domain.deployment import Deployment, Settled, State, advance
from superbrain.domain.proof import CaseTime, OutputFigures, Proof

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = dt.datetime(2026, 3, 1, 9, 30, tzinfo=dt.UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


def a_deployment(sequence: int = 1, digest: str = "ab", **others: Any) -> Deployment:  # noqa: ANN401
    made: dict[str, Any] = {"version": "1.0.0", "ladder": ("one", "two")}
    return Deployment(id=0, name="ocr", sequence=sequence, digest=digest, **(made | others))


def test_a_step_survives_the_daemon(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.sqlite")
    before = first.create(a_deployment(), NOW)
    after, _ = advance(before, Settled())
    first.record(before, "Settled", after, NOW)
    first.close()
    second = Journal(tmp_path / "journal.sqlite")
    assert second.get(before.id) == after
    second.close()


def test_deployments_are_counted_by_model_and_state(journal: Journal) -> None:
    first = journal.create(a_deployment(1), NOW)
    journal.create(a_deployment(2), NOW)
    journal.create(a_deployment(3), NOW)
    after, _ = advance(first, Settled())
    journal.record(first, "Settled", after, NOW)
    assert journal.state_counts() == {"ocr": {"RECEIVED": 2, "VERIFYING": 1}}


def test_full_sync_and_a_write_ahead_log_are_set(tmp_path: Path, journal: Journal) -> None:
    journal.create(a_deployment(), NOW)
    other = sqlite3.connect(tmp_path / "journal.sqlite")
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._file.db.execute("PRAGMA synchronous").fetchone()[0] == 2
    other.close()


def test_a_journal_of_a_newer_superbrain_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(JournalError, match=f"has schema {SCHEMA_VERSION + 1}"):
        Journal(path)


def test_a_file_that_is_no_journal_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(JournalDamaged, match="is damaged: file is not a database"):
        Journal(path)


def test_the_floor_never_sinks(journal: Journal) -> None:
    for sequence in (3, 2):
        created = journal.create(a_deployment(sequence, f"digest {sequence}"), NOW)
        journal.accept(created, ["key"], NOW)
    assert journal.floor("ocr") == Floor(3, "digest 3")


def test_signers_of_a_bundle_are_remembered(journal: Journal) -> None:
    journal.accept(journal.create(a_deployment(), NOW), ["key one", "two"], NOW)
    assert journal.signers("ab") == ["key", "one", "two"]


def test_the_current_deployment_is_the_one_made_current_last(journal: Journal) -> None:
    one, two = (journal.create(a_deployment(n, str(n)), NOW) for n in (1, 2))
    journal.make_current(one, NOW)
    journal.make_current(two, NOW)
    assert journal.current("ocr") == two
    assert journal.models() == {"ocr": two.id}


def test_a_failed_transaction_leaves_nothing_behind(journal: Journal) -> None:
    created = journal.create(a_deployment(), NOW)
    journal._file.db.execute("DROP TABLE transitions")
    after, _ = advance(created, Settled())
    with pytest.raises(JournalError, match="cannot be written"):
        journal.record(created, "Settled", after, NOW)
    assert journal.get(created.id) == created


def test_proofs_are_kept_with_all_figures(journal: Journal) -> None:
    created = journal.create(a_deployment(), NOW)
    figure = OutputFigures("page", "label", "", passed=False, tolerance="exact", reason="differs")
    proof = Proof("onnxruntime:cpu", [figure], [CaseTime("page", 2.5)])
    journal.add_proof(created.id, 4, proof, NOW)
    assert [record.proof for record in journal.proofs(created.id)] == [proof]


def test_history_tells_every_step_newest_first(journal: Journal) -> None:
    before = journal.create(a_deployment(), NOW)
    after, _ = advance(before, Settled())
    journal.record(before, "Settled", after, NOW, "why")
    newest, oldest = journal.history(model="ocr")
    assert (newest.event, newest.state_to, newest.detail) == ("Settled", "VERIFYING", "why")
    assert (oldest.event, oldest.state_from) == ("Created", "")


def test_deployments_are_found_by_state_and_digest(journal: Journal) -> None:
    created = journal.create(a_deployment(), NOW)
    assert journal.in_states([State.RECEIVED]) == [created]
    assert journal.in_states([State.LIVE]) == []
    assert journal.in_states([State.RECEIVED], "ocr") == [created]
    assert journal.in_states([State.RECEIVED], "another") == []
    assert journal.newest_with_digest("ab") == created
    assert journal.newest_with_digest("cd") is None


def test_what_serves_is_relevant_however_many_attempts_came_after_it(journal: Journal) -> None:
    previous = journal.create(a_deployment(version="1.0.0", state=State.RETIRED), NOW)
    serving = journal.create(
        a_deployment(version="2.0.0", state=State.LIVE, predecessor=previous.id), NOW
    )
    journal.make_current(serving, NOW)
    rejected = [
        journal.create(a_deployment(version=f"3.0.{n}", state=State.REJECTED), NOW)
        for n in range(100)
    ]
    assert journal.relevant("ocr") == [rejected[-1], serving, previous]


def test_what_is_under_way_is_relevant_to_its_own_model_alone(journal: Journal) -> None:
    mine = journal.create(a_deployment(), NOW)
    other = journal.create(msgspec.structs.replace(a_deployment(), name="another"), NOW)
    assert journal.relevant("ocr") == [mine]
    assert journal.relevant("another") == [other]


def test_what_served_last_is_relevant_where_nothing_serves(journal: Journal) -> None:
    older, retired = (
        journal.create(a_deployment(version=f"{n}.0.0", state=State.RETIRED), NOW) for n in (1, 2)
    )
    given_up = [
        journal.create(a_deployment(version=f"3.0.{n}", state=State.ABANDONED), NOW)
        for n in range(3)
    ]
    assert journal.relevant("ocr") == [given_up[-1], retired]
    assert older not in journal.relevant("ocr")


def test_a_write_that_failed_leaves_the_journal_usable(journal: Journal) -> None:
    before = journal.create(a_deployment(), NOW)
    journal._file.db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(JournalError, match="full"):
        journal.record(before, "TooLarge", before, NOW, "x" * 4_000_000)
    assert journal.trouble is not None
    journal._file.db.execute("PRAGMA max_page_count = 100000")
    journal.record(before, "Written", before, NOW)
    assert journal.history(limit=1)[0].event == "Written"
    assert journal.trouble is None


def test_what_is_pruned_is_gone_with_its_steps_and_proofs(journal: Journal) -> None:
    made = [journal.create(a_deployment(n, digest=f"d{n}"), NOW) for n in range(1, 5)]
    for one in made:
        journal.add_proof(one.id, 1, Proof("one", [], []), NOW)
        journal.accept(one, ["key"], NOW)
    assert journal.prune("ocr", {made[0].id, made[3].id}) == 2
    assert [one.id for one in journal.of_model("ocr")] == [made[3].id, made[0].id]
    assert {step.deployment_id for step in journal.history()} == {made[0].id, made[3].id}
    assert journal.proofs(made[1].id) == []
    assert len(journal.proofs(made[0].id)) == 1
    assert (journal.signers("d2"), journal.signers("d1")) == ([], ["key"])


def test_pruning_leaves_the_sequence_floor_and_other_models_alone(journal: Journal) -> None:
    other = journal.create(a_deployment(), NOW)
    mine = journal.create(
        Deployment(id=0, name="asr", version="1.0.0", sequence=7, digest="cd", ladder=("one",)), NOW
    )
    journal.accept(mine, ["key"], NOW)
    assert journal.prune("asr", set()) == 1
    assert journal.floor("asr") == Floor(7, "cd")
    assert journal.get(other.id) == other


def test_a_deployment_after_pruning_gets_no_number_that_was_used(journal: Journal) -> None:
    gone = journal.create(a_deployment(), NOW)
    journal.prune("ocr", set())
    assert journal.create(a_deployment(2), NOW).id > gone.id


def test_notes_are_history_too_and_only_the_newest_are_kept(journal: Journal) -> None:
    before = journal.create(a_deployment(), NOW)
    after, _ = advance(before, Settled())
    journal.record(before, "Settled", after, NOW)
    for number in range(KEPT_NOTES + 5):
        journal.note(after, "WorkerHung", NOW, f"hang {number}")
    steps = journal.history(limit=1000)
    assert [step.event for step in steps[-2:]] == ["Settled", "Created"]
    notes = [step.detail for step in steps[:-2]]
    assert notes == [f"hang {number}" for number in reversed(range(5, KEPT_NOTES + 5))]
    assert {(step.state_from, step.state_to) for step in steps[:-2]} == {("VERIFYING", "VERIFYING")}
    assert journal.get(before.id) == after


def test_a_retirement_is_known_to_candidates_that_failed_before_it_and_not_after(
    journal: Journal,
) -> None:
    serving = journal.create(a_deployment(), NOW)
    failed = journal.create(a_deployment(2, "cd"), NOW)
    assert not journal.retired_since(failed)
    journal.record(serving, "RetireAsked", serving, NOW)
    assert journal.retired_since(failed)
    later = journal.create(a_deployment(3, "ef"), NOW)
    assert not journal.retired_since(later)


def test_a_journal_of_the_release_before_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    journal._file.db.executescript("DROP TABLE facts; PRAGMA user_version = 1;")
    journal.close()
    journal = Journal(path)
    journal.set_fact("a", "b")
    assert journal.fact("a") == "b"
    journal.close()


def test_a_proof_of_a_form_that_is_not_known_is_left_out(journal: Journal) -> None:
    created = journal.create(a_deployment(), NOW)
    good = Proof("cpu", [OutputFigures("one", "y", "", True, "exact")], [CaseTime("one", 1.0)])
    journal.add_proof(created.id, 1, good, NOW)
    journal.add_proof(created.id, 2, good, NOW)
    journal._file.db.execute("UPDATE proofs SET body = ? WHERE worker = 1", (b'{"rung":null}',))
    journal._file.db.commit()
    assert [record.worker for record in journal.proofs(created.id)] == [2]
