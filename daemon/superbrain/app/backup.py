"""Making a backup: everything that makes this host itself, at one moment, while it serves.

    config/superbrain.toml      the configuration
    trust/…                     whom this host believes, and what is revoked on it
    tcp/…                       who may ask by TCP; server.key only when it is asked for
    state/…                     journal, what served, audit trail, trust updates, bundles

Bundles are copied first and the journal after them, until every bundle is there that the journal
needs: a daemon that goes on deploying meanwhile makes no difference. What can be had again is left
out: what lies in the inbox, scratch folders, sockets, reports, and engines built on this host.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import superbrain
from superbrain.app.backup_archive import (
    ArchiveWriter,
    BackupError,
    open_regular,
    unwritable,
)
from superbrain.app.config import Config
from superbrain.bundle.archive import ENVELOPE_NAME
from superbrain.bundle.disk import FULL
from superbrain.bundle.store import Store
from superbrain.bundle.trust_folder import read_trust_files
from superbrain.deploy.journal_copy import JournalFacts, copy_journal, read_facts
from superbrain.domain.backup import SCHEMA, Backup, Held
from superbrain.domain.errors import StoreError, TrustUnusable
from superbrain.host.audit_log import older_files

ROUNDS: Final = 5
CONFIG_NAME: Final = "config/superbrain.toml"
SERVER_KEY_NAME: Final = "tcp/server.key"
SERVER_PUBLIC_NAME: Final = "tcp/server.pub"


class Made(NamedTuple):
    """A backup that was made; `damaged` are bundles that the store itself has no good copy of."""

    backup: Backup
    sha256: str
    damaged: list[str]


def make_backup(
    config: Config, config_path: Path | None, target: Path, *, bundles: bool, secrets: bool
) -> Made:
    """Write a backup; a running daemon goes on serving.

    Args:
        config: where everything lies.
        config_path: the configuration file; None when there is none.
        target: the file to make, readable for its owner alone.
        bundles: take the bundles along.
        secrets: take the TCP server's secret key along.

    Raises:
        SuperbrainError: something cannot be read or written; nothing is left behind.
    """
    _require_host(config)
    with (
        _reading(),
        tempfile.TemporaryDirectory(prefix="superbrain-backup-") as work,
        ArchiveWriter(target) as archive,
    ):
        damaged: list[str] = []
        journal = Path(work) / "journal.sqlite"
        facts = _add_bundles(archive, config, journal, damaged, bundles=bundles)
        with journal.open("rb") as file:
            archive.add("state/journal.sqlite", file, 0o640)
        _add_state(archive, config)
        _add_configuration(archive, config, config_path, secrets=secrets)
        backup = Backup(
            schema=SCHEMA,
            made_at=dt.datetime.now(dt.UTC),
            host=os.uname().nodename,
            superbrain=superbrain.__version__,
            journal_schema=facts.schema,
            with_bundles=bundles,
            with_secrets=secrets,
            held=held(facts, config.trust_path),
            models=facts.models,
            files=archive.files,
        )
        return Made(backup, archive.finish(backup), damaged)


def _require_host(config: Config) -> None:
    with _reading():
        if config.journal_path.exists():
            return
    raise BackupError(
        f"expected a host to back up, found no journal {config.journal_path}",
        code="BACKUP_NO_HOST",
        mend="Name the folder of a daemon that was started by hand: --root DIR, or --config FILE",
    )


def held(facts: JournalFacts | None, trust: Path) -> Held:
    """What must not get lower, by a journal and a trust folder; a folder that is no good: none."""
    keys: list[str] = []
    revoked: list[str] = []
    with contextlib.suppress(TrustUnusable):
        files = read_trust_files(trust)
        keys = sorted(key.key_id for key in files.anchor.keys)
        revoked = sorted(files.revoked)
    if facts is None:
        return Held(revoked=revoked, keys=keys)
    return Held(facts.floors, facts.updates, revoked, keys, facts.time_floor)


def _add_bundles(
    archive: ArchiveWriter, config: Config, journal: Path, damaged: list[str], *, bundles: bool
) -> JournalFacts:
    """Copy bundles and the journal until the one has all that the other needs."""
    store = Store(config.store_path) if bundles and config.store_path.exists() else None
    there: set[str] = set()
    for _ in range(ROUNDS):
        for digest in store.digests() if store else ():
            if digest not in there and digest not in damaged:
                _add_bundle(archive, store, digest, there, damaged)
        journal.unlink(missing_ok=True)
        copy_journal(config.journal_path, journal)
        facts = read_facts(journal)
        present = {*store.digests()} if store else set()
        if not (facts.needed & present) - there - {*damaged}:
            return facts
    raise BackupError(
        f"the store changed {ROUNDS} times while it was copied",
        code="BACKUP_BUSY",
        mend="Try again when fewer bundles are being dropped",
    )


def _add_bundle(
    archive: ArchiveWriter, store: Store | None, digest: str, there: set[str], damaged: list[str]
) -> None:
    """Add one bundle whole, or nothing of it: it may be collected or be damaged."""
    assert store is not None  # noqa: S101 - there are digests
    mark = archive.mark()
    folder = store.path(digest)
    try:
        manifest = store.manifest(digest)
        wanted = {entry.path: entry.sha256 for entry in manifest.files}
        for path in (ENVELOPE_NAME, *wanted):
            with open_regular(folder / path) as file:
                held_file = archive.add(f"state/store/bundles/{digest}/{path}", file)
            if wanted.get(path, held_file.sha256) != held_file.sha256:
                raise StoreError(f"{path} is damaged", reason="STORE_DAMAGED")
    except (FileNotFoundError, StoreError) as error:
        archive.rewind(mark)
        if folder.exists() or getattr(error, "reason", "STORE_MISSING") != "STORE_MISSING":
            damaged.append(digest)
    else:
        there.add(digest)


def _add_state(archive: ArchiveWriter, config: Config) -> None:
    """What the daemon keeps beside journal and bundles."""
    state = config.journal_path.parent
    _add_if_there(archive, "state/serving.json", state / "serving.json")
    _add_audit(archive, state)
    for chain in sorted(_folders(config.chains_path)):
        for path in sorted(chain.glob("*.sbt")):
            _add_if_there(archive, f"state/trust/{chain.name}/{path.name}", path)


def _add_audit(archive: ArchiveWriter, state: Path) -> None:
    """The trail up to its last whole line. The head is read first, so it is never ahead of it."""
    mark = archive.mark()
    for _ in range(ROUNDS):
        archive.rewind(mark)
        older = older_files(state)
        _add_if_there(archive, "state/audit.head", state / "audit.head")
        newest = b""
        with contextlib.suppress(FileNotFoundError), open_regular(state / "audit.log") as file:
            newest = file.read()
        if older == older_files(state):  # else it went over to another file in between
            break
    for path in older:
        _add_if_there(archive, f"state/{path.name}", path)
    if newest:
        archive.add_bytes("state/audit.log", newest[: newest.rfind(b"\n") + 1], 0o600)


def _add_configuration(
    archive: ArchiveWriter, config: Config, config_path: Path | None, *, secrets: bool
) -> None:
    """What root has written: configuration, trust, and who may ask by TCP."""
    if config_path is not None:
        _add_if_there(archive, CONFIG_NAME, config_path)
    trust = config.trust_path
    _add_if_there(archive, "trust/trust.toml", trust / "trust.toml")
    for folder, pattern in (("keys", "*.pub"), ("revoked", "*")):
        for path in sorted((trust / folder).glob(pattern)):
            _add_if_there(archive, f"trust/{folder}/{path.name}", path)
    for path in sorted(Path(config.tcp.clients).glob("*.pub")):
        _add_if_there(archive, f"tcp/clients/{path.name}", path)
    key = Path(config.tcp.secret_key)
    _add_if_there(archive, SERVER_PUBLIC_NAME, key.with_suffix(".pub"))
    if secrets:
        _add_if_there(archive, SERVER_KEY_NAME, key)


def _add_if_there(archive: ArchiveWriter, name: str, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), open_regular(path) as file:
        archive.add(name, file)


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.glob("*") if path.is_dir() and not path.is_symlink()]


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise unwritable(error.filename or tempfile.gettempdir(), error) from error
        raise BackupError(
            f"expected to read {error.filename}, found: {error.strerror}",
            code="BACKUP_UNREADABLE",
            mend="Run it as root, or as the user that superbraind runs as",
        ) from error
