"""Where things lie: whole paths, folders apart from each other, an endpoint that can be bound."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from superbrain.app.config import Config, ConfigError, load_config

FOLDERS = ("inbox", "state", "runtime", "trust")
FILES = ("tcp.clients", "tcp.secret_key")
#: What install.sh, --root and people by hand have laid out.
LAYOUTS = {
    "as installed": {},
    "below one folder": {name: f"/srv/superbrain/{name}" for name in FOLDERS},
    "on disks of their own": {"inbox": "/mnt/drop", "state": "/data/state", "trust": "/boot/trust"},
    "names that begin alike": {"inbox": "/srv/state-inbox", "state": "/srv/state"},
    "the state beside what it holds": {"state": "/var/lib/superbrain/state/../states"},
}


def loaded(tmp_path: Path, section: str, **keys: str) -> Config:
    path = tmp_path / "superbrain.toml"
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    path.write_text("\n".join([f"[{section}]", *lines]) + "\n")
    return load_config(path, environment={})


def refusal(tmp_path: Path, section: str, **keys: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, section, **keys)
    return caught.value


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_folders_beside_each_other_are_good(tmp_path: Path, layout: dict[str, str]) -> None:
    config = loaded(tmp_path, "paths", **layout)
    assert all(getattr(config.paths, name) == path for name, path in layout.items())


@pytest.mark.parametrize("value", ["", ".", "inbox", "./inbox", "~/inbox", "\\u0000", "/a\\u0000b"])
@pytest.mark.parametrize("key", [*(f"paths.{one}" for one in FOLDERS), *FILES, "health.path"])
def test_a_path_that_is_not_whole_is_refused(tmp_path: Path, key: str, value: str) -> None:
    section, _, name = key.partition(".")
    if key == "health.path" and not value:
        assert loaded(tmp_path, section, **{name: value}) == Config()  # that of the runtime folder
        return
    error = refusal(tmp_path, section, **{name: value})
    assert f"expected {key} to be an absolute path, found " in error.message
    assert error.mend == "Name the whole path, from / on"


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(FOLDERS, 2)))
def test_no_folder_lies_in_another(tmp_path: Path, one: str, other: str) -> None:
    error = refusal(tmp_path, "paths", **{one: "/srv/sb", other: "/srv/sb/below/it"})
    assert f"expected paths.{other} outside paths.{one}, found /srv/sb/below/it in /srv/sb" in str(
        error
    )
    assert error.mend.startswith("Give each of paths.inbox, paths.state, paths.runtime and")


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(FOLDERS, 2)))
def test_no_folder_is_another(tmp_path: Path, one: str, other: str) -> None:
    error = refusal(tmp_path, "paths", **{one: "/srv/sb/", other: "/srv/x/../sb"})
    assert f"expected paths.{one} and paths.{other} to be two folders" in error.message


def test_the_root_of_all_folders_is_none(tmp_path: Path) -> None:
    assert "outside paths.inbox" in refusal(tmp_path, "paths", inbox="/").message


def test_symbolic_links_hide_nothing(tmp_path: Path) -> None:
    state, inbox = tmp_path / "state", tmp_path / "inbox"
    (state / "inner").mkdir(parents=True)
    inbox.symlink_to(state / "inner")
    error = refusal(tmp_path, "paths", inbox=str(inbox), state=str(state))
    assert f"found {inbox} ({state}/inner) in {state}" in error.message


@pytest.mark.parametrize("endpoint", ["ipc:///run/superbrain/ask.sock", "ipc:///srv/ask"])
def test_a_path_after_ipc_is_an_endpoint(tmp_path: Path, endpoint: str) -> None:
    assert loaded(tmp_path, "serve", endpoint=endpoint).endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://x",
        "/run/superbrain/infer.sock",
        "ipc://infer.sock",
        "ipc://@abstract",
        "ipc://*",
        "ipc:///",
        "ipc:///run/superbrain/",
        "ipc:///run/\\u0000",
        "inproc://x",
        "IPC:///run/infer.sock",
    ],
)
def test_nothing_else_is_one(tmp_path: Path, endpoint: str) -> None:
    error = refusal(tmp_path, "serve", endpoint=endpoint)
    assert "expected serve.endpoint like ipc:///run/superbrain/infer.sock" in error.message
    assert "tcp" not in error.mend


def test_who_wants_tcp_is_told_of_its_own_section(tmp_path: Path) -> None:
    error = refusal(tmp_path, "serve", endpoint="tcp://127.0.0.1:15999")
    assert "found 'tcp://127.0.0.1:15999'" in error.message
    assert '[tcp] endpoints = ["tcp://127.0.0.1:15999"]' in error.mend
    assert "docs/access.md" in error.mend


def test_an_endpoint_longer_than_a_socket_may_be_is_refused(tmp_path: Path) -> None:
    longest = "/" + "x" * 106
    assert loaded(tmp_path, "serve", endpoint=f"ipc://{longest}").endpoint == f"ipc://{longest}"
    error = refusal(tmp_path, "serve", endpoint=f"ipc://{longest}x")
    assert "108 bytes" in error.message
    assert "107" in error.message


def test_the_control_socket_stays_the_operators_own(tmp_path: Path) -> None:
    error = refusal(tmp_path, "serve", endpoint="ipc:///run/superbrain/control.sock")
    assert "control socket" in error.message
