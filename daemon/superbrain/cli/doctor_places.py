"""The part of a diagnosis that is superbrain's own: configuration, folders, trust, the daemon.

What the user who asks may not see is a note, never a problem: most of it is private on purpose.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import superbrain
from superbrain.app.config import DEFAULT_CONFIG, Config, ConfigError, Paths, load_config
from superbrain.bundle.trust_folder import read_trust_folder
from superbrain.cli.control import ControlClient, ControlError, NotPermitted, NotRunning
from superbrain.domain.diagnosis import Finding, note, ok, problem
from superbrain.domain.errors import TrustUnusable
from superbrain.domain.health import Health
from superbrain.domain.machine import disk_findings
from superbrain.domain.operations import GetHealth, HealthReply
from superbrain.host.machine import read_disk

_WITH_SUDO: Final = "sudo superbrain doctor sees it"


class Place(NamedTuple):
    """A folder that may be seen: who it belongs to, and its mode."""

    path: Path
    mode: int
    uid: int

    @property
    def text(self) -> str:
        """Say it as `ls` would."""
        return f"{self.path}, {_user(self.uid)}, mode {self.mode:04o}"


def find_configuration(path: Path | None, root: Path | None) -> tuple[Config, Finding]:
    """Read the configuration; where it cannot be used the defaults stand in for it."""
    where = path or DEFAULT_CONFIG
    try:
        config = load_config(path, root)
    except ConfigError as error:
        return _defaults(root), _unusable_configuration(where, error)
    if root is not None and path is None:
        return config, ok("configuration", "configuration", f"the defaults, below {root}")
    there = f"{where} is good" if where.exists() else f"no {where}: the defaults hold"
    return config, ok("configuration", "configuration", there)


def _unusable_configuration(where: Path, error: ConfigError) -> Finding:
    name = "configuration"
    if where.exists() and not os.access(where, os.R_OK):
        return note(name, name, f"{where} is not for this user to see", _WITH_SUDO)
    mend = error.mend or "superbrain config check says what is wrong with it"
    return problem(name, name, error.message, mend)


def _defaults(root: Path | None) -> Config:
    if root is None:
        return Config()
    names = ("inbox", "state", "run", "trust")
    return Config(paths=Paths(*(str(root.resolve() / name) for name in names)))


def place_findings(config: Config) -> list[Finding]:
    """Judge the folders, and the disks they are on."""
    state = config.journal_path.parent
    installed = _there(state) or _there(config.trust_path)
    findings = [
        *_folder("state", "state folder", state, _judge_private),
        *_folder("store", "store", config.store_path, _judge_private),
        *_folder("inbox", "inbox", config.inbox_path, _judge_inbox),
        _trust(config, installed=installed),
    ]
    places = {
        "disk_state": ("disk of the state", state),
        "disk_inbox": ("disk of the inbox", config.inbox_path),
    }
    seen = set()
    for name, (subject, folder) in places.items():
        disk = read_disk(folder)
        if disk is not None and (disk.kind, disk.total_bytes, disk.free_bytes) not in seen:
            seen.add((disk.kind, disk.total_bytes, disk.free_bytes))
            findings += disk_findings(name, subject, disk)
    return findings


def daemon_finding(client: ControlClient) -> tuple[Finding, Health | None]:
    """Ask the daemon how it is, where there is one and this user may."""
    name, subject = "daemon", "superbraind"
    try:
        health = client.ask(GetHealth(), HealthReply).health
    except NotRunning as error:
        return note(name, subject, error.message, "systemctl start superbraind"), None
    except NotPermitted as error:
        return note(name, subject, error.message, error.mend), None
    except ControlError as error:
        return problem(name, subject, error.message, error.mend), None
    return _judge_daemon(health), health


def _judge_daemon(health: Health) -> Finding:
    name, subject = "daemon", "superbraind"
    ready = sum(model.state == "ready" for model in health.models)
    text = f"version {health.version} answers, {ready} of {len(health.models)} models ready"
    if health.version != superbrain.__version__:
        mend = "use its own command, or restart it: systemctl restart superbraind"
        return note(name, subject, f"{text}; this command is {superbrain.__version__}", mend)
    if health.status == "ok":
        return ok(name, subject, text)
    first = health.problems[0]
    found = f"{text}; {first.subject}: {first.message}"
    make = problem if health.status == "critical" else note
    return make(name, subject, found, "superbrain status lists all of it with what to do")


# --- folders ------------------------------------------------------------------------------------


def _folder(
    name: str, subject: str, path: Path, judge: Callable[[Place], tuple[str, str]]
) -> Iterator[Finding]:
    try:
        found = path.stat()
    except PermissionError:
        yield note(name, subject, f"{path} is not for this user to see", _WITH_SUDO)
        return
    except OSError:
        yield note(name, subject, f"{path} is not there yet", "superbraind makes it at its start")
        return
    place = Place(path, stat.S_IMODE(found.st_mode), found.st_uid)
    wrong, mend = judge(place)
    if not stat.S_ISDIR(found.st_mode):
        yield problem(name, subject, f"{path} is no folder", f"move it away: {path}")
    elif wrong:
        yield problem(name, subject, f"{place.text}: {wrong}", mend)
    else:
        yield ok(name, subject, place.text)


def _judge_private(place: Place) -> tuple[str, str]:
    if place.mode & (stat.S_IRWXO | stat.S_IWGRP):
        return "others get at it", f"chmod g-w,o-rwx {place.path}"
    return "", ""


def _judge_inbox(place: Place) -> tuple[str, str]:
    if place.mode & stat.S_IWOTH:
        return "everybody on this host may drop bundles", f"chmod o-w {place.path}"
    return "", ""


def _trust(config: Config, *, installed: bool) -> Finding:
    name, subject, folder = "trust", "trusted keys", config.trust_path
    if not _there(folder):
        if not _visible(folder):
            return note(name, subject, f"{folder} is not for this user to see", _WITH_SUDO)
        mend = "superbrain key generate NAME; put NAME.pub into its folder keys: docs/operations.md"
        make = problem if installed else note
        return make(name, subject, f"{folder} is not there: no bundle can be verified", mend)
    try:
        trust = read_trust_folder(folder)
    except TrustUnusable as error:
        return _unusable(config, error)
    except PermissionError:
        return note(name, subject, f"{folder} is not for this user to see", _WITH_SUDO)
    keys = len(trust.usable_keys())
    return ok(name, subject, f"{keys} in {folder}, {trust.threshold} must have signed")


def _unusable(config: Config, error: TrustUnusable) -> Finding:
    """Judge what cannot be used: by this user, or by the service's, whose files these may be."""
    name, subject, folder = "trust", "trusted keys", config.trust_path
    if error.reason == "TRUST_UNREADABLE" and os.geteuid():
        return note(name, subject, f"{folder} is not for this user to see", _WITH_SUDO)
    if error.reason == "TRUST_OWNER" and folder.stat().st_uid == _owner(config.store_path.parent):
        text = f"{folder} belongs to the service's user, {_user(folder.stat().st_uid)}"
        return note(name, subject, text, "superbrain trust show says what the daemon makes of it")
    return problem(name, subject, error.message, error.mend)


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _visible(path: Path) -> bool:
    """Whether this user could see it if it were there."""
    try:
        path.stat()
    except PermissionError:
        return False
    except OSError:
        return True
    return True


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def this_user() -> str:
    """Name who asks, with the groups that count."""
    groups = []
    for group in os.getgroups():
        try:
            groups.append(grp.getgrgid(group).gr_name)
        except KeyError:
            continue
    user = _user(os.geteuid())
    return f"{user} (superbrain)" if "superbrain" in groups and user != "superbrain" else user
