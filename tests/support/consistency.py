"""Whether an appliance is whole, from the outside: what must hold at every instant, and at rest.

>>> assert broken(appliance) == []         # while it works, or while it is stopped
>>> assert_at_rest(appliance)              # once nothing is under way any more

At every instant: the journal is sound; what serves and what served before lie in the store, byte
for byte. At rest besides: nothing is in staging, no copy is unfinished, the store holds nothing
that nobody needs, every dropped file was dealt with, and the processes and sockets are exactly
those of what serves.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil

from superbrain.bundle.store import Store
from superbrain.deploy.journal import Journal
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, State
from superbrain.domain.errors import StoreError
from superbrain.domain.retention import retained
from tests.support.appliance import Appliance

_NEEDS_PREVIOUS = frozenset({State.PROBATION, State.ROLLING_BACK})


def broken(appliance: Appliance) -> list[str]:
    """Give what is wrong at an instant at which anything may be under way; empty for nothing."""
    found = _look(appliance.root / "state")
    # What is current may change, and its old predecessor go, between the look at the journal and
    # the look at the store: only what is still wrong at a second look is wrong.
    return [fault for fault in _look(appliance.root / "state") if fault in found] if found else []


def assert_at_rest(appliance: Appliance, *, children: int | None = None) -> None:
    """Wait until nothing is under way, and require that everything is as it must be then.

    `children` is how many processes are at work; None for the gateway and what the journal says.
    """
    faults: list[str] = []

    def whole() -> bool:
        faults[:] = [*broken(appliance), *_unfinished(appliance, children)]
        return not faults

    try:
        appliance.wait_for(whole, "everything to be whole and at rest")
    except AssertionError as error:
        raise AssertionError(f"{faults}\n{error}") from None


def stray_workers(known: set[psutil.Process]) -> list[psutil.Process]:
    """Give those of the processes seen before that live on though their daemon is gone."""
    return [process for process in known if process.is_running() and _adopted(process)]


# --- at every instant -----------------------------------------------------------------------------


def _look(state: Path) -> list[str]:
    try:
        return [*_journal_faults(state / "journal.sqlite"), *_store_faults(state)]
    except (sqlite3.Error, OSError) as error:
        return [f"cannot be looked at: {error}"]


def _journal_faults(path: Path) -> Iterator[str]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        for (said,) in db.execute("PRAGMA integrity_check").fetchall():
            if said != "ok":
                yield f"journal: {said}"
        for row in db.execute("PRAGMA foreign_key_check").fetchall():
            yield f"journal: a row of {row[0]} refers to nothing"


def _store_faults(state: Path) -> Iterator[str]:
    store = Store(state / "store")
    for serving, previous in _served(state):
        yield from _missing(store, serving)
        if previous is not None and (
            serving.state in _NEEDS_PREVIOUS or store.path(previous.digest).exists()
        ):
            yield from _missing(store, previous)
        if serving.state not in life.SERVING | {State.SWITCHING, State.DRAINING}:
            yield f"{serving.name}: current is {serving.version}, which is {serving.state}"


def _served(state: Path) -> list[tuple[Deployment, Deployment | None]]:
    journal = Journal(state / "journal.sqlite")
    try:
        current = [journal.current(name) for name in journal.models()]
        return [(one, journal.get(one.predecessor)) for one in current if one is not None]
    finally:
        journal.close()


def _missing(store: Store, deployment: Deployment) -> Iterator[str]:
    try:
        store.rehash(deployment.digest)
    except StoreError as error:
        yield f"{deployment.name} {deployment.version} ({deployment.state}): {error.message}"


# --- at rest --------------------------------------------------------------------------------------


def _unfinished(appliance: Appliance, children: int | None) -> Iterator[str]:
    state, run = appliance.root / "state", appliance.root / "run"
    journal = Journal(state / "journal.sqlite")
    try:
        current = journal.models()
        keep = retained({name: journal.relevant(name) for name in current}, current)
        under_way = journal.in_states((*life.UNFINISHED, State.PROBATION, State.ROLLING_BACK))
        serving = sum(1 for deployment_id in current.values() if deployment_id)
    finally:
        journal.close()
    yield from (f"{one.name} {one.version} is {one.state}" for one in under_way)
    yield from (f"left in staging: {path.name}" for path in (state / "store/.staging").iterdir())
    kept = {path.name for path in (state / "store/bundles").iterdir()}
    yield from (f"stored without need: {name}" for name in kept - keep)
    yield from (f"unfinished copy: {path}" for path in _partial_files(appliance))
    yield from (f"left in the inbox: {path.name}" for path in appliance.inbox.glob("*.sbb"))
    if appliance.process is None:
        return
    expected = 1 + serving if children is None else children
    if len(appliance.at_work()) != expected:
        yield f"expected {expected} processes, found {appliance.at_work()}"
    lanes = list(run.rglob("*.lane"))
    if len(lanes) != expected - 1:
        yield f"expected {expected - 1} lanes, found {lanes}"
    yield from (
        f"no {name}" for name in ("infer.sock", "control.sock") if not (run / name).exists()
    )


def _partial_files(appliance: Appliance) -> list[Path]:
    """Give what a writer that was cut short would leave."""
    folders = (appliance.inbox, appliance.root / "state", appliance.root / "run")
    names = (".*.sbb*", "*.part", "*.tmp", ".*.part")
    return [path for folder in folders for name in names for path in folder.glob(name)]


def _adopted(process: psutil.Process) -> bool:
    """Whether its daemon is gone and it still runs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE and process.ppid() == 1
    return False
