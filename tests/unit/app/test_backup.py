"""Backups and restores without a daemon: what is in them, what is refused, what a kill leaves."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from superbrain.app import backup_archive, restore_plan
from superbrain.app.backup import Made, make_backup
from superbrain.app.backup_archive import BackupError
from superbrain.app.config import Config, load_config
from superbrain.app.restore import Options, Restored, restore
from superbrain.app.restore_plan import plan_path, refuse_half_restored
from superbrain.bundle.disk import rename
from superbrain.cli.main import main
from superbrain.deploy.journal import Journal
from superbrain.deploy.journal_file import JournalError
from superbrain.domain.audit import Action
from superbrain.host import state_lock
from superbrain.host.audit_log import AuditLog, verify_folder
from superbrain.host.state_lock import StateInUse
from tests.support.bundles import KeyPair, sign_key
from tests.support.hosts import NOW, install, make_host, tree


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return sign_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def host(tmp_path: Path, author: KeyPair) -> Config:
    return make_host(tmp_path / "host", author, 1, 2)


@pytest.fixture
def file(tmp_path: Path, host: Config) -> Path:
    """A backup of `host`."""
    back_up(host, tmp_path / "host.sbbackup")
    return tmp_path / "host.sbbackup"


def back_up(host: Config, target: Path, **options: bool) -> Made:
    chosen = {"bundles": True, "secrets": False} | options
    return make_backup(host, None, target, **chosen)


def restore_at(root: Path, file: Path, **options: Any) -> Restored:  # noqa: ANN401 - of Options
    return restore(file, Options(root=root)._replace(**options))


def test_a_restored_host_has_the_same_journal_bundles_trust_and_trail(
    tmp_path: Path, host: Config, file: Path
) -> None:
    done = restore_at(tmp_path / "new", file)
    new = load_config(None, tmp_path / "new", {})
    assert done.backup.models == {"adder": "2.0.0"}
    assert tree(new.store_path) == tree(host.store_path)
    assert tree(new.trust_path) == tree(host.trust_path)
    journal = Journal(new.journal_path)
    current = journal.current("adder")
    floor = journal.floor("adder").sequence
    journal.close()
    assert current is not None
    assert (current.version, floor) == ("2.0.0", 2)
    trail = AuditLog(new.journal_path.parent).newest(50)
    assert trail[0].action == Action.RESTORED
    assert trail[0].peer is not None
    assert Action.DAEMON_STARTED in [entry.action for entry in trail]
    assert verify_folder(new.journal_path.parent).faults == []
    assert not list((tmp_path / "new").glob(".*"))


def test_a_backup_is_for_its_owner_alone_and_never_takes_the_place_of_a_file(
    host: Config, file: Path
) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(BackupError, match="is there already"):
        back_up(host, file)


def test_a_backup_that_fails_leaves_nothing_behind(tmp_path: Path, host: Config) -> None:
    host.journal_path.write_bytes(b"no journal at all" * 100)
    with pytest.raises(BackupError) as caught:
        back_up(host, tmp_path / "nowhere" / "x")
    assert caught.value.code == "BACKUP_UNWRITABLE"
    with pytest.raises(JournalError):
        back_up(host, tmp_path / "x")
    assert not [path.name for path in tmp_path.iterdir() if "x" in path.name]


@pytest.mark.parametrize("room_bytes", [0, 5_000, 20_000])
def test_a_backup_that_has_no_room_says_so_and_leaves_nothing_behind(
    tmp_path: Path, host: Config, monkeypatch: pytest.MonkeyPatch, room_bytes: int
) -> None:
    monkeypatch.setattr(backup_archive, "os", SmallDisk(room_bytes))
    with pytest.raises(BackupError, match=r"x: expected to write there, found: No space") as caught:
        back_up(host, tmp_path / "x")
    assert (caught.value.code, caught.value.mend) == (
        "BACKUP_NO_SPACE",
        "Free some space on that disk",
    )
    assert not [path.name for path in tmp_path.iterdir() if "x" in path.name]


def test_without_a_host_the_place_of_one_is_asked_for(tmp_path: Path) -> None:
    nowhere = load_config(None, tmp_path / "nowhere", {})
    with pytest.raises(BackupError, match="found no journal") as caught:
        back_up(nowhere, tmp_path / "x")
    assert caught.value.code == "BACKUP_NO_HOST"
    assert "--root" in caught.value.mend
    assert list(tmp_path.iterdir()) == []


class SmallDisk:
    """Stands in for `os` where the archive is written: there is room for so many bytes."""

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever `os` has
        return getattr(os, name)

    def fdopen(self, descriptor: int, mode: str) -> io.BufferedIOBase:
        if mode == "rb":
            return open(descriptor, "rb")
        return io.BufferedRandom(_SmallFile(descriptor, self._room_bytes))


class _SmallFile(io.FileIO):
    def __init__(self, descriptor: int, room_bytes: int) -> None:
        super().__init__(descriptor, "w+b")
        self._room_bytes = room_bytes

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        if self.tell() + len(data) > self._room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_the_servers_secret_key_is_in_it_only_when_asked_for(tmp_path: Path, host: Config) -> None:
    folder = tmp_path / "tcp"
    (folder / "clients").mkdir(parents=True)
    (folder / "server.key").write_text("a secret")
    (folder / "clients" / "camera.pub").write_text("public")
    tcp = type(host.tcp)(secret_key=str(folder / "server.key"), clients=str(folder / "clients"))
    host = type(host)(paths=host.paths, tcp=tcp)
    assert b"a secret" not in _written(back_up, host, tmp_path / "without")
    with_it = tmp_path / "with"
    assert back_up(host, with_it, secrets=True).backup.with_secrets
    assert b"a secret" in with_it.read_bytes()
    with tarfile.open(tmp_path / "without") as tar:
        assert "tcp/clients/camera.pub" in tar.getnames()


def _written(make: Callable[[Config, Path], Made], host: Config, target: Path) -> bytes:
    make(host, target)
    return target.read_bytes()


def test_without_bundles_it_has_none(tmp_path: Path, host: Config) -> None:
    made = back_up(host, tmp_path / "small", bundles=False)
    assert (made.backup.bundles, made.backup.with_bundles) == (0, False)
    done = restore_at(tmp_path / "new", tmp_path / "small")
    assert done.backup.models == {"adder": "2.0.0"}


def test_a_bundle_that_the_store_has_no_good_copy_of_is_left_out_and_named(
    tmp_path: Path, host: Config
) -> None:
    (graph, *_) = host.store_path.rglob("main.onnx")
    graph.chmod(0o644)
    graph.write_bytes(b"x" * graph.stat().st_size)
    made = back_up(host, tmp_path / "one")
    assert made.damaged == [graph.parents[1].name]
    assert made.backup.bundles == 1
    restore_at(tmp_path / "new", tmp_path / "one", dry_run=True)


def test_a_link_in_the_state_folder_is_not_followed(tmp_path: Path, host: Config) -> None:
    (tmp_path / "secret").write_text("not ours")
    (host.journal_path.parent / "serving.json").symlink_to(tmp_path / "secret")
    with pytest.raises(BackupError):
        back_up(host, tmp_path / "x")


# --- what is refused ------------------------------------------------------------------------------


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20_000])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    at = data.find(b"SQLite format 3") + 5000
    data[at] ^= 1
    file.write_bytes(data)


def add_another(file: Path) -> None:
    with tarfile.open(file, "a") as tar:
        tar.add(__file__, "state/extra")


def append_to(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        with tarfile.open(file) as tar:
            members = [(one, tar.extractfile(one)) for one in tar.getmembers()]
            content = [(one, data.read() if data else b"") for one, data in members]
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
            for one, data in content:
                changed = data.replace(old, new) if one.name == name else data
                one.size = len(changed)
                _add(tar, one, changed)

    return change


def _add(tar: tarfile.TarFile, member: tarfile.TarInfo, data: bytes) -> None:
    tar.addfile(member, io.BytesIO(data))


def no_backup(file: Path) -> None:
    file.write_bytes(b"hello")


def gone(file: Path) -> None:
    file.unlink()


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (cut, "BACKUP_DAMAGED"),
    "a flipped bit": (flip, "BACKUP_DAMAGED"),
    "another member": (add_another, "BACKUP_DAMAGED"),
    "another content": (append_to("state/audit.log", b"daemon", b"demons"), "BACKUP_DAMAGED"),
    "another format": (
        append_to("BACKUP.json", b'"schema": 1,', b'"schema": 2,'),
        "BACKUP_SCHEMA",
    ),
    "no backup": (no_backup, "BACKUP_DAMAGED"),
    "not there": (gone, "BACKUP_DAMAGED"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_backup_is_refused_and_nothing_changes(
    tmp_path: Path, file: Path, name: str
) -> None:
    spoil, code = SPOILED[name]
    spoil(file)
    with pytest.raises(BackupError) as found:
        restore_at(tmp_path / "new", file)
    assert found.value.code == code
    assert found.value.mend
    assert not (tmp_path / "new" / "state").exists()
    assert not plan_path(load_config(None, tmp_path / "new", {})).exists()


def test_a_dry_run_checks_while_a_daemon_runs_and_says_what_would_be_refused(
    tmp_path: Path, host: Config, file: Path
) -> None:
    before = tree(tmp_path / "host")
    with state_lock.only_one(host.journal_path.parent):
        done = restore_at(tmp_path / "host", file, dry_run=True)
    assert "expected a host without models" in done.refused
    after = tree(tmp_path / "host")
    after.pop("state/daemon.lock")
    assert after == before
    flip(file)
    with pytest.raises(BackupError):
        restore_at(tmp_path / "host", file, dry_run=True)


@pytest.mark.parametrize(("words", "code"), [([], 1), (["--replace"], 0)])
def test_a_dry_run_has_the_exit_code_that_the_restore_would_have(
    tmp_path: Path, host: Config, file: Path, words: list[str], code: int
) -> None:
    here = ["restore", str(file), "--root", str(tmp_path / "host"), *words]
    assert main([*here, "--dry-run"]) == code
    assert main(here) == code


def test_the_line_that_starts_a_restored_host_names_only_what_is_there(
    tmp_path: Path, host: Config, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    assert main(["restore", str(file), "--root", str(new)]) == 0
    assert capsys.readouterr().out.endswith(f"\nnow: superbraind --root {new}\n")
    configured = tmp_path / "configured.toml"
    configured.write_text("[deploy]\nparallel = 1\n")
    make_backup(host, configured, tmp_path / "with", bundles=True, secrets=False)
    again = ["restore", str(tmp_path / "with"), "--root", str(new), "--replace"]
    assert main(again) == 0
    config = new / "superbrain.toml"
    assert capsys.readouterr().out.endswith(f"\nnow: superbraind --root {new} --config {config}\n")


def test_a_journal_of_a_newer_superbrain_is_refused(tmp_path: Path, file: Path) -> None:
    append_to("BACKUP.json", b'"journal_schema": ', b'"journal_schema": 9')(file)
    with pytest.raises(JournalError, match="Install the version that wrote it") as found:
        restore_at(tmp_path / "new", file)
    assert "this build knows" in found.value.message


def test_a_running_daemon_is_refused(tmp_path: Path, host: Config, file: Path) -> None:
    with state_lock.only_one(host.journal_path.parent), pytest.raises(StateInUse):
        restore_at(tmp_path / "host", file, replace=True)


def test_a_host_with_models_is_left_alone_unless_it_may_be_replaced(
    tmp_path: Path, host: Config, file: Path
) -> None:
    before = tree(tmp_path / "host")
    with pytest.raises(BackupError, match="a journal with 1 models") as found:
        restore_at(tmp_path / "host", file)
    assert found.value.code == "RESTORE_OCCUPIED"
    after = tree(tmp_path / "host")
    after.pop("state/daemon.lock")
    assert after == before
    done = restore_at(tmp_path / "host", file, replace=True)
    kept = next(path for path in done.kept if path.name.startswith("state.before-restore-"))
    assert (kept / "journal.sqlite").read_bytes() == before["state/journal.sqlite"]
    detail = AuditLog(host.journal_path.parent).newest(1)[0].detail
    assert f"is kept in {kept.name}" in detail


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_everything_belongs_to_whose_it_was_whatever_the_umask(
    tmp_path: Path, author: KeyPair, file: Path
) -> None:
    fresh = make_host(tmp_path / "new", author)
    state = fresh.journal_path.parent
    state.chmod(0o700)
    for path in (state, *state.rglob("*")):
        os.chown(path, 12345, 12345)
    before = os.umask(0o077)
    try:
        restore_at(tmp_path / "new", file)
    finally:
        os.umask(before)
    assert {path.stat().st_uid for path in (state, *state.rglob("*"))} == {12345}
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    keys = fresh.trust_path / "keys"
    assert (keys.stat().st_uid, stat.S_IMODE(keys.stat().st_mode)) == (0, 0o755)
    assert stat.S_IMODE((keys / "author.pub").stat().st_mode) == 0o644


def test_the_folders_above_what_is_restored_can_be_entered_whatever_the_umask(
    tmp_path: Path, file: Path
) -> None:
    before = os.umask(0o077)
    try:
        restore_at(tmp_path / "nothing" / "yet", file)
    finally:
        os.umask(before)
    for folder in (tmp_path / "nothing", tmp_path / "nothing" / "yet"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_host_that_was_only_installed_takes_a_backup_and_keeps_its_trail(
    tmp_path: Path, author: KeyPair, file: Path
) -> None:
    make_host(tmp_path / "new", author)
    done = restore_at(tmp_path / "new", file)
    assert any((path / "audit.log").exists() for path in done.kept)


# --- what must not get lower ----------------------------------------------------------------------


def revoke(host: Config) -> str:
    digest = "ab" * 32
    folder = host.trust_path / "revoked"
    folder.mkdir(mode=0o755)
    (folder / digest).touch(0o644)
    return digest


def test_an_older_backup_is_refused_unless_it_is_meant_and_then_audited(
    tmp_path: Path, author: KeyPair, host: Config, file: Path
) -> None:
    journal = Journal(host.journal_path)
    install(host, journal, author, 3)
    journal.set_fact("trust.0123456789abcdef.4", "cd" * 32)
    journal.set_fact("time_floor", (NOW + dt.timedelta(days=9)).isoformat())
    journal.close()
    digest = revoke(host)
    with pytest.raises(BackupError) as found:
        restore_at(tmp_path / "host", file, replace=True)
    assert found.value.code == "RESTORE_OLDER"
    for said in ("releases from number 2 on", "update 0 would count again, 4", digest[:12]):
        assert said in found.value.message
    done = restore_at(tmp_path / "host", file, replace=True, accept_older=True)
    assert len(done.lower) == 3
    entry = AuditLog(host.journal_path.parent).newest(1)[0]
    assert entry.outcome == "restored, older accepted"
    assert digest[:12] in entry.detail
    journal = Journal(host.journal_path)
    floor = journal.fact("time_floor")
    journal.close()
    assert floor == (NOW + dt.timedelta(days=9)).isoformat()  # the later time is simply kept


def test_a_journal_that_cannot_be_read_gives_way_only_when_it_is_meant(
    tmp_path: Path, host: Config, file: Path
) -> None:
    host.journal_path.write_bytes(b"no journal" * 1000)
    with pytest.raises(BackupError, match="nobody knows what this host had accepted") as found:
        restore_at(tmp_path / "host", file, replace=True)
    assert found.value.code == "RESTORE_OLDER"
    done = restore_at(tmp_path / "host", file, replace=True, accept_older=True)
    assert done.lower
    assert "nobody knows" in AuditLog(host.journal_path.parent).newest(1)[0].detail


def test_a_revocation_on_a_fresh_host_counts_too(
    tmp_path: Path, author: KeyPair, file: Path
) -> None:
    fresh = make_host(tmp_path / "new", author)
    revoke(fresh)
    with pytest.raises(BackupError, match="is revoked on this host"):
        restore_at(tmp_path / "new", file)


def test_a_key_that_is_trusted_no_more_does_not_come_back_in_silence(
    tmp_path: Path, host: Config, file: Path
) -> None:
    another = sign_key(tmp_path / "another")
    shutil.rmtree(host.trust_path / "keys")
    (host.trust_path / "keys").mkdir(mode=0o755)
    shutil.copy(another.public, host.trust_path / "keys" / "another.pub")
    with pytest.raises(BackupError, match="would be believed, and is not now"):
        restore_at(tmp_path / "host", file, replace=True)


# --- cut off --------------------------------------------------------------------------------------


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("after", range(6))
def test_a_restore_that_is_cut_off_changes_nothing_or_goes_on(
    tmp_path: Path,
    host: Config,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    before = tree(tmp_path / "host")
    left = after

    def cut_off(source: Path, target: Path) -> None:
        nonlocal left
        if left == 0:
            raise Cut
        left -= 1
        rename(source, target)

    cutting = pytest.raises(Cut) if after < 5 else contextlib.nullcontext()
    with monkeypatch.context() as patch, cutting:
        patch.setattr(restore_plan, "rename", cut_off)
        restore_at(tmp_path / "host", file, replace=True)
    if after == 0:  # the plan was not written: all is as it was
        now = {name: data for name, data in tree(tmp_path / "host").items() if name in before}
        assert now == before
        refuse_half_restored(host)
    elif after < 5:
        with pytest.raises(BackupError, match="is not finished"):
            refuse_half_restored(host)
    done = restore_at(tmp_path / "host", file, replace=True)
    assert done.resumed == (0 < after < 5)
    refuse_half_restored(host)
    assert verify_folder(host.journal_path.parent).faults == []
    assert AuditLog(host.journal_path.parent).newest(1)[0].action == Action.RESTORED
    kept = [path for path in done.kept if path.name.startswith("state.before")]
    assert (kept[0] / "journal.sqlite").exists()
    assert not list((tmp_path / "host").glob(".*"))


def test_a_folder_that_tmpfiles_makes_meanwhile_is_no_hindrance(
    tmp_path: Path, host: Config, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def cut_off(source: Path, target: Path) -> None:
        rename(source, target)
        if "before-restore" in target.name and target.name.startswith("state"):
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(restore_plan, "rename", cut_off)
        with pytest.raises(Cut):
            restore_at(tmp_path / "host", file, replace=True)
    host.journal_path.parent.mkdir()
    assert restore_at(tmp_path / "host", file, replace=True).resumed
    assert host.journal_path.exists()


def test_another_backup_finishes_what_was_begun_and_is_not_restored(
    tmp_path: Path, host: Config, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(host, tmp_path / "other")

    def cut_off(*_: object) -> list[Path]:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr("superbrain.app.restore.carry_out", cut_off)
        with pytest.raises(Cut):
            restore_at(tmp_path / "host", file, replace=True)
    with pytest.raises(BackupError) as found:
        restore_at(tmp_path / "host", tmp_path / "other", replace=True)
    assert found.value.code == "RESTORE_OTHER_FINISHED"
    refuse_half_restored(host)


def test_a_plan_that_somebody_else_has_written_is_not_carried_out(
    tmp_path: Path, host: Config, file: Path
) -> None:
    plan_path(host).write_text('{"source": "x", "moves": []')
    with pytest.raises(BackupError) as found:
        restore_at(tmp_path / "host", file, replace=True)
    assert found.value.code == "RESTORE_PLAN"
