"""A host's folders without a daemon: journal, store, trust and trail as the daemon leaves them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec

from superbrain.app.config import Config, load_config
from superbrain.bundle.archive import open_bundle
from superbrain.bundle.store import Store
from superbrain.deploy.journal import Journal
from superbrain.domain.audit import Action
from superbrain.domain.deployment import Deployment, State
from superbrain.host.audit_log import AuditLog
from tests.support.bundles import KeyPair, make_bundle, make_trust_folder, trust_in

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def make_host(root: Path, author: KeyPair, *numbers: int) -> Config:
    """Make the folders below `root`, as if these versions of the adder had been deployed."""
    config = load_config(None, root, {})
    make_trust_folder(config.trust_path, author)
    state = config.journal_path.parent
    state.mkdir(parents=True)
    journal = Journal(config.journal_path)
    try:
        for number in numbers:
            install(config, journal, author, number)
        journal.set_fact("time_floor", NOW.isoformat())
    finally:
        journal.close()
    audit = AuditLog(state)
    audit.open()
    audit.write(Action.DAEMON_STARTED)
    return config


def install(config: Config, journal: Journal, author: KeyPair, number: int) -> Deployment:
    """Enter version NUMBER.0.0 as the one that serves, its bundle in the store."""
    version = f"{number}.0.0"
    work = config.journal_path.parents[1] / "work"
    bundle = make_bundle(work, author, version=version, sequence=number, constant=float(number))
    with bundle.path.open("rb") as file:
        verified = open_bundle(file, trust_in(author))
        Store(config.store_path, reserve_bytes=0).receive(file, verified)
    before = journal.current("adder")
    deployment = Deployment(
        id=0,
        name="adder",
        version=version,
        sequence=number,
        digest=verified.digest,
        ladder=("onnxruntime:cpu",),
        predecessor=before.id if before else 0,
    )
    created = journal.create(deployment, NOW)
    journal.accept(created, [author.key_id], NOW)
    live = msgspec.structs.replace(created, state=State.LIVE)
    journal.make_current(live, NOW)
    return live


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
