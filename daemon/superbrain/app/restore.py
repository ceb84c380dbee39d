"""Restoring a backup: everything is staged beside its place and checked, then moved in one plan.

Until the plan is written (restore_plan.py) nothing on this host has changed, and a restore that is
cut off leaves only what the next one removes. What was there before is kept aside.

What must not get lower (domain/backup.py) is compared first. The time floor is simply kept. What
the restored daemon then serves is not believed for having been restored: the trust chain is
verified again, bundles are hashed again, and every model is proven again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from superbrain.app.backup import CONFIG_NAME, SERVER_KEY_NAME, SERVER_PUBLIC_NAME, held
from superbrain.app.backup_archive import ArchiveReader, BackupError
from superbrain.app.config import DEFAULT_CONFIG, Config, load_config
from superbrain.app.restore_plan import Move, Plan, carry_out, clear, read_plan, write_plan
from superbrain.bundle.disk import fsync_folder, storing
from superbrain.deploy.journal import Journal
from superbrain.deploy.journal_copy import (
    JournalFacts,
    check_schema,
    copy_journal,
    read_facts,
)
from superbrain.deploy.journal_file import JournalError
from superbrain.domain.audit import Action, Peer
from superbrain.domain.backup import Backup, Held, HeldFile, lowered
from superbrain.host.audit_log import AuditLog, read_head
from superbrain.host.files import make_readable_folder
from superbrain.host.state_lock import only_one

SERVICE_USER: Final = "superbrain"
RESERVE_BYTES: Final = 64 << 20
FOLDER_MODE: Final = 0o755
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TIME_FACT: Final = "time_floor"


class Options(NamedTuple):
    """How to restore: where to, and what is allowed."""

    config_path: Path | None = None
    root: Path | None = None
    replace: bool = False
    accept_older: bool = False
    dry_run: bool = False


class Restored(NamedTuple):
    """What was done.

    `kept` is where what was there before lies, `lower` what is lower now, `left_out` what of the
    backup has no place below the root that was asked for. After a dry run `refused` says why it
    would not be done here.
    """

    backup: Backup
    kept: list[Path]
    lower: list[str]
    left_out: list[str]
    resumed: bool = False
    refused: str = ""


class _Owner(NamedTuple):
    uid: int
    gid: int
    folder_mode: int


class _Place(NamedTuple):
    """One part of the backup: what its names begin with, and where it comes to."""

    prefix: str
    target: Path
    owner: _Owner

    @property
    def staged(self) -> Path:
        return self.target.with_name(f".{self.target.name}.restoring")


class _Here(NamedTuple):
    """What is on this host now; `unknown` is what it may have accepted and nobody can read."""

    held: Held
    occupied: str
    unknown: list[str]


def restore(path: Path, options: Options) -> Restored:
    """Restore a backup; no daemon may use the state folder.

    Raises:
        SuperbrainError: it cannot be done; nothing has changed unless the message says so.
    """
    with ArchiveReader(path) as archive, _said():
        backup = archive.backup
        check_schema(backup.journal_schema, path)
        config = _config_of(archive, options)
        source = f"{backup.host} {backup.made_at.isoformat()}"
        state = config.journal_path.parent
        if options.dry_run:
            return _checked(archive, config, options)
        with _locked(state):
            plan = read_plan(config)
            if plan is not None:
                return _resumed(config, plan, source, backup)
            here = _here(config)
            lower = [*lowered(here.held, backup.held), *here.unknown]
            _refuse(here, lower, options)
            places, left_out = _places(config, options, backup)
            _check_room(state, backup)
            _stage(archive, places, left_out)
            staged = next(place for place in places if place.prefix == "state/")
            aside = _free_name(places)
            moves = [_move(place, aside) for place in places]
            _finish_state(staged, here.held, config, _sentence(backup, lower, state, aside))
            for place in places:
                _give(place)
            plan = Plan(source, moves)
            write_plan(config, plan)
            return Restored(backup, carry_out(config, plan), lower, left_out)


def _checked(archive: ArchiveReader, config: Config, options: Options) -> Restored:
    """Look at everything and change nothing; a daemon may run."""
    backup = archive.backup
    here = _here(config)
    lower = [*lowered(here.held, backup.held), *here.unknown]
    _, left_out = _places(config, options, backup)
    _check_content(archive)
    refused = ""
    try:
        _refuse(here, lower, options)
        _check_room(config.journal_path.parent, backup)
    except BackupError as error:
        refused = str(error)
    return Restored(backup, [], lower, left_out, refused=refused)


def _resumed(config: Config, plan: Plan, source: str, backup: Backup) -> Restored:
    kept = carry_out(config, plan)
    if plan.source != source:
        raise BackupError(
            f"the restore of {plan.source} had been cut off and is finished now; "
            f"this backup is another one and was not restored",
            code="RESTORE_OTHER_FINISHED",
            mend="Type the command again to restore this one, with --replace",
        )
    return Restored(backup, kept, [], [], resumed=True)


# --- what is here ---------------------------------------------------------------------------------


def _config_of(archive: ArchiveReader, options: Options) -> Config:
    """The configuration in the backup, which says where everything goes."""
    data = archive.read(CONFIG_NAME)
    if data is None:
        return load_config(None, options.root)
    with tempfile.TemporaryDirectory(prefix="superbrain-restore-") as work:
        path = Path(work) / "superbrain.toml"
        path.write_bytes(data)
        return load_config(path, options.root)


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    if not state.exists():
        yield
        return
    with only_one(state):
        yield


def _here(config: Config) -> _Here:
    """What this host has accepted so far, and why its state is not an empty one."""
    journal, store = config.journal_path, config.store_path / "bundles"
    bundles = [path for path in store.glob("*") if path.is_dir()]
    occupied = f"{len(bundles)} bundles" if bundles else ""
    facts = None
    unknown = []
    try:
        facts = _facts(journal) if journal.exists() else None
    except JournalError as error:
        occupied = "a journal that cannot be read"
        unknown = [f"nobody knows what this host had accepted: {error.message}"]
    if facts is not None and not facts.empty:
        occupied = f"a journal with {len(facts.floors)} models"
    return _Here(held(facts, config.trust_path), occupied, unknown)


def _facts(journal: Path) -> JournalFacts:
    with tempfile.TemporaryDirectory(prefix="superbrain-restore-") as work:
        copy_journal(journal, Path(work) / "journal.sqlite")
        return read_facts(Path(work) / "journal.sqlite")


def _refuse(here: _Here, lower: list[str], options: Options) -> None:
    if here.occupied and not options.replace:
        raise BackupError(
            f"expected a host without models, found {here.occupied}",
            code="RESTORE_OCCUPIED",
            mend="With --replace the backup takes its place; what is here is kept aside",
        )
    if lower and not options.accept_older:
        raise BackupError(
            "this backup is older than what this host has accepted: " + "; ".join(lower),
            code="RESTORE_OLDER",
            mend="Take a newer backup; or, if you mean it, --accept-older: the audit trail says so",
        )


def _check_room(state: Path, backup: Backup) -> None:
    place = next(path for path in (state, *state.parents) if path.exists())
    free, need = shutil.disk_usage(place).free, backup.size_bytes + RESERVE_BYTES
    if free < need:
        raise BackupError(
            f"expected {need} bytes free beside {state}, found {free}",
            code="RESTORE_NO_SPACE",
            mend="What is there now is kept until you remove it; make room first",
        )


def _check_content(archive: ArchiveReader) -> None:
    for file in archive.backup.files:
        for _ in archive.chunks(file):
            pass


# --- where it goes --------------------------------------------------------------------------------


def config_file(config_path: Path | None, root: Path | None) -> Path:
    """Where the configuration lies, or comes to."""
    return config_path or (root / DEFAULT_CONFIG.name if root else DEFAULT_CONFIG)


def _places(config: Config, options: Options, backup: Backup) -> tuple[list[_Place], list[str]]:
    """The parts that the backup has, state last, and those that lie outside the root asked for."""
    tcp, mine = config.tcp, _Owner(os.geteuid(), os.getegid(), 0o755)
    state = _state_owner(config.journal_path.parent, options)
    targets = {
        CONFIG_NAME: (config_file(options.config_path, options.root).absolute(), mine),
        "trust/": (config.trust_path, mine),
        "tcp/clients/": (Path(tcp.clients), mine),
        SERVER_PUBLIC_NAME: (Path(tcp.secret_key).with_suffix(".pub"), mine),
        SERVER_KEY_NAME: (Path(tcp.secret_key), state),
        "state/": (config.journal_path.parent, state),
    }
    found = {
        prefix: _Place(prefix, target, _owner(target, owner))
        for prefix, (target, owner) in targets.items()
        if any(file.name.startswith(prefix) for file in backup.files)
    }
    root = options.root
    outside = [
        prefix
        for prefix, place in found.items()
        if root and prefix.startswith("tcp/") and not place.target.is_relative_to(root.resolve())
    ]
    return [place for prefix, place in found.items() if prefix not in outside], outside


def _owner(target: Path, otherwise: _Owner) -> _Owner:
    """Whose it is now; else whose it should be."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return otherwise
    mode = stat.S_IMODE(found.st_mode) if stat.S_ISDIR(found.st_mode) else otherwise.folder_mode
    return _Owner(found.st_uid, found.st_gid, mode)


def _state_owner(state: Path, options: Options) -> _Owner:
    """The service's user on an installed host, as tmpfiles.d has it."""
    if os.geteuid() == 0 and options.root is None and not state.exists():
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(SERVICE_USER)
            return _Owner(user.pw_uid, user.pw_gid, 0o700)
    return _Owner(os.geteuid(), os.getegid(), 0o700)


def _free_name(places: list[_Place]) -> str:
    """What is added to the names of what is put aside; of no file that is there already."""
    now = f"before-restore-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
    names = (now, *(f"{now}-{number}" for number in range(2, 100)))
    return next(
        name for name in names if not any(Path(_move(one, name).aside).exists() for one in places)
    )


def _move(place: _Place, aside: str) -> Move:
    return Move(str(place.staged), str(place.target), f"{place.target}.{aside}")


# --- staging --------------------------------------------------------------------------------------


def _stage(archive: ArchiveReader, places: list[_Place], left_out: list[str]) -> None:
    """Write everything beside where it goes, hashed on the way."""
    for place in places:
        clear(place.staged)
        with storing(place.target):
            make_readable_folder(place.target.parent, parents=True)
            if place.prefix.endswith("/"):
                place.staged.mkdir(mode=0o700)
    for file in archive.backup.files:
        if not file.name.startswith(tuple(left_out)):
            _write(archive, file, _staged_path(file.name, places))
    for place in places:
        for folder, _, _ in os.walk(place.staged):
            fsync_folder(Path(folder))


def _staged_path(name: str, places: list[_Place]) -> Path:
    place = next((one for one in places if name.startswith(one.prefix)), None)
    if place is None:
        raise BackupError(
            f"expected only what a backup holds, found {name!r}",
            code="BACKUP_DAMAGED",
            mend="Restore it with the version of superbrain that made it",
        )
    return place.staged.joinpath(*PurePosixPath(name[len(place.prefix) :]).parts)


def _write(archive: ArchiveReader, file: HeldFile, path: Path) -> None:
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        with os.fdopen(os.open(path, _NEW, 0o600), "wb") as out:
            for chunk in archive.chunks(file):
                out.write(chunk)
            out.flush()
            os.fchmod(out.fileno(), file.mode & 0o777)
            os.fsync(out.fileno())


def _finish_state(place: _Place, here: Held, config: Config, sentence: tuple[str, str]) -> None:
    """Open the journal as the daemon will, keep the later time, and write into the trail."""
    staged = place.staged
    journal = Journal(staged / config.journal_path.name)
    try:
        there = journal.fact(_TIME_FACT)
        if here.time_floor and (not there or dt.datetime.fromisoformat(there) < here.time_floor):
            journal.set_fact(_TIME_FACT, here.time_floor.isoformat())
    finally:
        journal.close()
    audit = AuditLog(staged)
    audit.open()
    outcome, detail = sentence
    peer = Peer(os.getuid(), os.getgid(), os.getpid())
    audit.write(Action.RESTORED, "this host's state", outcome, detail, peer)
    if audit.trouble:
        raise BackupError(audit.trouble, code="RESTORE_AUDIT", mend="Make room on that disk")


def _sentence(backup: Backup, lower: list[str], state: Path, aside: str) -> tuple[str, str]:
    """The outcome and the detail of the trail's entry."""
    what = f"from a backup of {backup.host}, made at {backup.made_at:%Y-%m-%d %H:%M:%S} UTC"
    if lower:
        what += f"; lower than before: {'; '.join(lower)}"
    head = read_head(state / "audit.head")
    if head.sequence:
        what += (
            f"; the trail before ended with entry {head.sequence}, sha256 {head.sha256}, "
            f"and is kept in {state.name}.{aside}"
        )
    return ("restored, older accepted" if lower else "restored"), what


def _give(place: _Place) -> None:
    """Give what was staged to whose it will be."""
    owner = place.owner
    with storing(place.staged):
        for path in (place.staged, *place.staged.rglob("*")):
            if path.is_dir():  # whatever the umask of who restores
                path.chmod(owner.folder_mode if path == place.staged else FOLDER_MODE)
            if os.geteuid() == 0 or path.lstat().st_uid != owner.uid:
                os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Turn what the operating system says into a sentence; nothing has been moved by then."""
    try:
        yield
    except OSError as error:
        raise BackupError(
            f"expected to work with {error.filename}, found: {error.strerror}",
            code="RESTORE_IO",
            mend="Run it as root; see which disk and which permissions are in the way",
        ) from error
