"""The last step of a restore: what was staged takes the place of what was there, whatever happens.

Once the plan is on the disk, every rename in it will be made: by the restore that wrote it, or by
the next one after a power cut. While it is there no daemon starts, so nothing ever serves from half
of one host and half of another.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from superbrain.app.backup_archive import BackupError
from superbrain.app.config import Config
from superbrain.bundle.disk import fsync_folder, remove, remove_tree, rename, storing
from superbrain.host.state_lock import LOCK_NAME

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MAX_PLAN_BYTES = 1 << 20


class Move(msgspec.Struct, frozen=True):
    """What is staged comes to `target`; what was there goes to `aside`."""

    staged: str
    target: str
    aside: str


class Plan(msgspec.Struct, frozen=True):
    """All moves of one restore, and from what."""

    source: str
    moves: list[Move]


def plan_path(config: Config) -> Path:
    """Where the plan lies: beside the state folder."""
    state = config.journal_path.parent
    return state.with_name(f"{state.name}.restore")


def refuse_half_restored(config: Config) -> None:
    """Keep a daemon from starting in the middle of a restore.

    Raises:
        BackupError: a restore was begun and is not finished.
    """
    path = plan_path(config)
    if path.is_symlink() or path.exists():
        raise BackupError(
            f"a restore was begun and is not finished: {path} is there",
            code="RESTORE_UNFINISHED",
            mend="Type the same `superbrain restore …` again: it goes on where it was cut off",
        )


def read_plan(config: Config) -> Plan | None:
    """Read the plan of a restore that was cut off; None when there is none.

    Raises:
        BackupError: it was not written by this user, so nobody knows what it would do.
    """
    path = plan_path(config)
    try:
        with os.fdopen(os.open(path, _READ), "rb") as file:
            found = os.fstat(file.fileno())
            mine = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            data = file.read(MAX_PLAN_BYTES) if mine else b""
            return msgspec.json.decode(data, type=Plan)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupError(
            f"{path}: expected the plan of a restore that this user began, found another thing",
            code="RESTORE_PLAN",
            mend=f"Run it as the user who began; or look at it, remove {path}, and begin again",
        ) from error


def write_plan(config: Config, plan: Plan) -> None:
    """Bring the plan to the disk: from here on the restore will be finished.

    Raises:
        StoreError: it cannot be written; nothing has changed.
    """
    path = plan_path(config)
    part = path.with_name(f"{path.name}.part")
    with storing(path):
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, _NEW, 0o600), "wb") as file:
            file.write(msgspec.json.encode(plan))
            file.flush()
            os.fsync(file.fileno())
        rename(part, path)
    fsync_folder(path.parent)


def carry_out(config: Config, plan: Plan) -> list[Path]:
    """Make every move that is not made yet and forget the plan; what was there before is kept.

    Raises:
        StoreError: a move cannot be made; the next restore goes on from there.
    """
    for move in plan.moves:
        staged, target, aside = Path(move.staged), Path(move.target), Path(move.aside)
        if staged.exists():
            with storing(target):
                if target.exists() and not aside.exists():
                    rename(target, aside)
                elif target.is_dir():
                    _remove_empty(target)
                rename(staged, target)
            fsync_folder(target.parent)
    with storing(plan_path(config)):
        remove(plan_path(config))
    fsync_folder(plan_path(config).parent)
    return [Path(move.aside) for move in plan.moves if Path(move.aside).exists()]


def _remove_empty(folder: Path) -> None:
    """Remove what was made anew since the folder was put aside, such as by tmpfiles.d at a start.

    Raises:
        OSError: there is something in it.
    """
    (folder / LOCK_NAME).unlink(missing_ok=True)
    folder.rmdir()


def clear(path: Path) -> None:
    """Remove what an earlier restore staged and never moved.

    Raises:
        StoreError: it cannot be removed.
    """
    with storing(path):
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
