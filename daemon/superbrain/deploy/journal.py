"""The journal: what the daemon must still know after it was killed, in one SQLite file.

When `record` returns, the step is on the disk, and only then is it performed. Every method is one
transaction. journal_file.py has the file and its schema.

    models        which deployment is current, and the highest sequence ever accepted
    deployments   the newest form of every deployment
    transitions   every step any deployment ever took
    proofs        every proof that ran, passed or not
    bundles       who signed the bundles in the store
    facts         single values: the time floor, the newest trust update of each anchor
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.journal_file import JournalError, JournalFile
from superbrain.domain.deployment import ENDED, Deployment, State
from superbrain.domain.operations import ProofRecord, Transition
from superbrain.domain.proof import Proof
from superbrain.wire.messages import UNREADABLE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable
    from pathlib import Path

KEPT_NOTES = 100
_NOT_OVER = frozenset(State) - ENDED - {State.RETIRED}


class Floor(msgspec.Struct, frozen=True):
    """The highest sequence ever accepted for a name, and the bundle that carried it."""

    sequence: int = 0
    digest: str = ""


class Journal:
    """Everything that survives the daemon. Use from one thread.

    `trouble` is what the last write failed on, None since one has succeeded.

    Raises:
        JournalError: on every SQLite failure, with the path and what to do.
    """

    def __init__(self, path: Path) -> None:
        self._file = JournalFile(path)
        self._transaction = self._file.transaction
        self._read = self._file.read
        self._check_deployments()

    @property
    def trouble(self) -> JournalError | None:
        """What the last write failed on."""
        return self._file.trouble

    def close(self) -> None:
        """Close the file; everything recorded is on the disk already."""
        self._file.close()

    # --- deployments --------------------------------------------------------------------------

    def create(self, deployment: Deployment, at: dt.datetime) -> Deployment:
        """Write down a new deployment and give it back with its id."""
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO deployments (name, version, digest, state, body, created_at)"
                " VALUES (?, ?, ?, ?, x'', ?)",
                (
                    deployment.name,
                    deployment.version,
                    deployment.digest,
                    deployment.state,
                    at.isoformat(),
                ),
            )
            created = msgspec.structs.replace(deployment, id=int(cursor.lastrowid or 0))
            self._put(db, created)
            db.execute("INSERT OR IGNORE INTO models (name) VALUES (?)", (created.name,))
            again = created.origin == "retry" or created.attempt > 1
            origin = "tried again" if again else "dropped into the inbox"
            self._log(db, at, "Created", None, created, origin)
        return created

    def record(
        self, before: Deployment, event: str, after: Deployment, at: dt.datetime, detail: str = ""
    ) -> None:
        """Write down one step of a deployment."""
        with self._transaction() as db:
            self._put(db, after)
            self._log(db, at, event, before, after, detail)
            if after.state is State.LIVE:
                db.execute(
                    "UPDATE deployments SET live_since = coalesce(live_since, ?) WHERE id = ?",
                    (at.isoformat(), after.id),
                )

    def note(self, deployment: Deployment, event: str, at: dt.datetime, detail: str) -> None:
        """Write down what happened to a deployment without moving it; the newest notes are kept."""
        with self._transaction() as db:
            self._log(db, at, event, deployment, deployment, detail)
            db.execute(
                "DELETE FROM transitions WHERE deployment = ? AND state_from = state_to"
                " AND id NOT IN (SELECT id FROM transitions WHERE deployment = ?"
                " AND state_from = state_to ORDER BY id DESC LIMIT ?)",
                (deployment.id, deployment.id, KEPT_NOTES),
            )

    def make_current(self, deployment: Deployment, at: dt.datetime) -> None:
        """The commit point: from here on this deployment is the one that serves its model."""
        with self._transaction() as db:
            self._put(db, deployment)
            db.execute(
                "UPDATE models SET current = ? WHERE name = ?", (deployment.id, deployment.name)
            )
            db.execute(
                "UPDATE deployments SET live_since = ? WHERE id = ?",
                (at.isoformat(), deployment.id),
            )

    def clear_current(self, name: str) -> None:
        """Nothing serves this model any more."""
        with self._transaction() as db:
            db.execute("UPDATE models SET current = 0 WHERE name = ?", (name,))

    def get(self, deployment_id: int) -> Deployment | None:
        """Read one deployment."""
        rows = self._read("SELECT body FROM deployments WHERE id = ?", deployment_id)
        return _deployment(rows[0]) if rows else None

    def current(self, name: str) -> Deployment | None:
        """Read the deployment that serves a model."""
        rows = self._read(
            "SELECT body FROM deployments WHERE id = (SELECT current FROM models WHERE name = ?)",
            name,
        )
        return _deployment(rows[0]) if rows else None

    def models(self) -> dict[str, int]:
        """Give every model's name with the id of its current deployment, 0 for none."""
        rows = self._read("SELECT name, current FROM models ORDER BY name")
        return {row["name"]: row["current"] for row in rows}

    def state_counts(self) -> dict[str, dict[str, int]]:
        """Count the deployments that are known, by model and state."""
        rows = self._read("SELECT name, state, count(*) AS n FROM deployments GROUP BY name, state")
        counts: dict[str, dict[str, int]] = {}
        for row in rows:
            counts.setdefault(row["name"], {})[row["state"]] = row["n"]
        return counts

    def in_states(self, states: Iterable[State], name: str = "") -> list[Deployment]:
        """Read all deployments in any of these states, oldest first; of one model, or of all."""
        wanted = [str(state) for state in states]
        marks = ", ".join("?" * len(wanted))
        among = f"state IN ({marks})"
        if name:
            among, wanted = f"name = ? AND {among}", [name, *wanted]
        query = f"SELECT body FROM deployments WHERE {among} ORDER BY id"  # noqa: S608
        return [_deployment(row) for row in self._read(query, *wanted)]

    def of_model(self, name: str, limit: int = 50) -> list[Deployment]:
        """Read the newest deployments of a model, newest first."""
        rows = self._read(
            "SELECT body FROM deployments WHERE name = ? ORDER BY id DESC LIMIT ?", name, limit
        )
        return [_deployment(row) for row in rows]

    def relevant(self, name: str) -> list[Deployment]:
        """Read what may be needed of a model again, newest first, however many came between.

        All that is not over, the newest, the current one and its predecessor; where nothing serves,
        what served last.
        """
        current = self.current(name)
        previous = self.get(current.predecessor) if current else self._last_served(name)
        found = [*self.of_model(name, 1), current, previous, *self.in_states(_NOT_OVER, name)]
        mine = {row.id: row for row in found if row is not None and row.name == name}
        return [mine[number] for number in sorted(mine, reverse=True)]

    def _last_served(self, name: str) -> Deployment | None:
        rows = self._read(
            "SELECT body FROM deployments WHERE name = ? AND state = ? ORDER BY id DESC LIMIT 1",
            name,
            State.RETIRED,
        )
        return _deployment(rows[0]) if rows else None

    def newest_with_digest(self, digest: str) -> Deployment | None:
        """Read the newest attempt with this bundle."""
        rows = self._read(
            "SELECT body FROM deployments WHERE digest = ? ORDER BY id DESC LIMIT 1", digest
        )
        return _deployment(rows[0]) if rows else None

    def retired_since(self, deployment: Deployment) -> bool:
        """Tell whether an operator has retired the model since a deployment's last step."""
        rows = self._read(
            "SELECT 1 FROM transitions t JOIN deployments d ON d.id = t.deployment"
            " WHERE d.name = ? AND t.event = 'RetireAsked'"
            " AND t.id > (SELECT max(id) FROM transitions WHERE deployment = ?) LIMIT 1",
            *(deployment.name, deployment.id),
        )
        return bool(rows)

    def live_since(self, deployment_id: int) -> dt.datetime | None:
        """Tell since when a deployment has been the current one."""
        rows = self._read("SELECT live_since FROM deployments WHERE id = ?", deployment_id)
        text = rows[0]["live_since"] if rows else None
        return dt.datetime.fromisoformat(text) if text else None

    def began(self, deployment_id: int) -> dt.datetime | None:
        """Tell when a deployment began, as far as its history is kept."""
        rows = self._read(
            "SELECT at FROM transitions WHERE deployment = ? ORDER BY id LIMIT 1", deployment_id
        )
        return dt.datetime.fromisoformat(rows[0]["at"]) if rows else None

    # --- sequence floor, signers, proofs, history -----------------------------------------------

    def floor(self, name: str) -> Floor:
        """Read the highest sequence ever accepted for a name."""
        rows = self._read("SELECT floor_sequence, floor_digest FROM models WHERE name = ?", name)
        return Floor(rows[0]["floor_sequence"], rows[0]["floor_digest"]) if rows else Floor()

    def accept(self, deployment: Deployment, signers: list[str], at: dt.datetime) -> None:
        """Raise the floor to this deployment's sequence and remember who signed its bundle."""
        with self._transaction() as db:
            db.execute(
                "UPDATE models SET floor_sequence = ?, floor_digest = ?"
                " WHERE name = ? AND floor_sequence <= ?",
                (deployment.sequence, deployment.digest, deployment.name, deployment.sequence),
            )
            db.execute(
                "INSERT OR REPLACE INTO bundles (digest, signers, received_at) VALUES (?, ?, ?)",
                (deployment.digest, " ".join(signers), at.isoformat()),
            )

    def signers(self, digest: str) -> list[str]:
        """Tell which keys signed a bundle."""
        rows = self._read("SELECT signers FROM bundles WHERE digest = ?", digest)
        return str(rows[0]["signers"]).split() if rows else []

    def add_proof(self, deployment_id: int, worker: int, proof: Proof, at: dt.datetime) -> None:
        """Keep a proof, passed or not."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO proofs (deployment, at, worker, body) VALUES (?, ?, ?, ?)",
                (deployment_id, at.isoformat(), worker, msgspec.json.encode(proof)),
            )

    def proofs(self, deployment_id: int, limit: int = 20) -> list[ProofRecord]:
        """Read the newest proofs of a deployment, oldest first.

        One that another version of superbrain wrote may have no form that is known here, and is
        left out.
        """
        rows = self._read(
            "SELECT at, worker, body FROM proofs WHERE deployment = ? ORDER BY id DESC LIMIT ?",
            deployment_id,
            limit,
        )
        return [record for row in reversed(rows) if (record := _proof_record(row)) is not None]

    def history(
        self, *, model: str = "", deployment_id: int = 0, limit: int = 50
    ) -> list[Transition]:
        """Read the newest transitions of all, of one model or of one deployment, newest first."""
        rows = self._read(
            "SELECT t.*, d.name, d.version FROM transitions t JOIN deployments d"
            " ON d.id = t.deployment WHERE (? = '' OR d.name = ?) AND (? = 0 OR d.id = ?)"
            " ORDER BY t.id DESC LIMIT ?",
            *(model, model, deployment_id, deployment_id, limit),
        )
        return [
            Transition(
                at=dt.datetime.fromisoformat(row["at"]),
                deployment_id=row["deployment"],
                model=row["name"],
                version=row["version"],
                event=row["event"],
                state_from=row["state_from"],
                state_to=row["state_to"],
                rung=row["rung"],
                detail=row["detail"],
            )
            for row in rows
        ]

    def prune(self, name: str, keep: Collection[int]) -> int:
        """Forget all deployments of a model but these, with their steps and proofs; how many."""
        rows = self._read("SELECT id FROM deployments WHERE name = ?", name)
        gone = [(row["id"],) for row in rows if row["id"] not in keep]
        if gone:
            with self._transaction() as db:
                db.executemany("DELETE FROM transitions WHERE deployment = ?", gone)
                db.executemany("DELETE FROM proofs WHERE deployment = ?", gone)
                db.executemany("DELETE FROM deployments WHERE id = ?", gone)
                db.execute(
                    "DELETE FROM bundles WHERE digest NOT IN (SELECT digest FROM deployments)"
                )
        return len(gone)

    # --- facts --------------------------------------------------------------------------------

    def fact(self, name: str) -> str:
        """Read a single value; empty when it was never written."""
        rows = self._read("SELECT value FROM facts WHERE name = ?", name)
        return str(rows[0]["value"]) if rows else ""

    def set_fact(self, name: str, value: str) -> None:
        """Write a single value; an empty one is forgotten."""
        with self._transaction() as db:
            if value:
                db.execute(
                    "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value)
                )
            else:
                db.execute("DELETE FROM facts WHERE name = ?", (name,))

    def _check_deployments(self) -> None:
        """Make sure that every deployment can be read.

        Raises:
            JournalDamaged: one cannot.
        """
        try:
            for row in self._read("SELECT body FROM deployments"):
                _deployment(row)
        except msgspec.MsgspecError as error:
            self.close()
            raise self._file.damage(f"a deployment that is none: {error}") from error

    # --- inside -------------------------------------------------------------------------------

    def _put(self, db: sqlite3.Connection, deployment: Deployment) -> None:
        db.execute(
            "UPDATE deployments SET state = ?, body = ? WHERE id = ?",
            (deployment.state, msgspec.json.encode(deployment), deployment.id),
        )

    def _log(
        self,
        db: sqlite3.Connection,
        at: dt.datetime,
        event: str,
        before: Deployment | None,
        after: Deployment,
        detail: str,
    ) -> None:
        db.execute(
            "INSERT INTO transitions (deployment, at, event, state_from, state_to, rung, detail)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                after.id,
                at.isoformat(),
                event,
                before.state if before else "",
                after.state,
                before.rung if before else "",
                detail,
            ),
        )


def _deployment(row: sqlite3.Row) -> Deployment:
    return msgspec.json.decode(row["body"], type=Deployment)


def _proof_record(row: sqlite3.Row) -> ProofRecord | None:
    try:
        proof = msgspec.json.decode(row["body"], type=Proof)
    except UNREADABLE:
        return None
    return ProofRecord(dt.datetime.fromisoformat(row["at"]), row["worker"], proof)
