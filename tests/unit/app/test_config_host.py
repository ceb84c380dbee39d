"""What a good configuration still needs of the host: said by `superbrain config check`."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from superbrain.app.config import Config, ConfigError, Paths, Serve, load_config
from superbrain.app.config_host import check_host
from superbrain.cli.main import main
from superbrain.host.group import GroupError


def test_an_installed_host_needs_nothing_more() -> None:
    check_host(Config())


def test_a_group_that_this_host_lacks_is_named() -> None:
    with pytest.raises(GroupError, match=r"expected serve\.group .* found 'nosuchgroup'"):
        check_host(Config(serve=Serve(group="nosuchgroup")))


def test_a_group_of_this_host_is_good() -> None:
    check_host(Config(serve=Serve(group=grp.getgrgid(os.getgid()).gr_name)))


def test_the_folder_of_an_endpoint_must_be_there(tmp_path: Path) -> None:
    missing = f"ipc://{tmp_path}/missing/infer.sock"
    with pytest.raises(ConfigError, match=r"expected the folder of serve\.endpoint") as caught:
        check_host(Config(serve=Serve(endpoint=missing)))
    assert f"{tmp_path}/missing" in caught.value.message
    check_host(Config(serve=Serve(endpoint=f"ipc://{tmp_path}/infer.sock")))


def test_the_runtime_folder_is_made_by_the_daemon(tmp_path: Path) -> None:
    paths = Paths(runtime=f"{tmp_path}/run")
    check_host(Config(paths=paths, serve=Serve(endpoint=f"ipc://{tmp_path}/run/ask.sock")))


def test_a_file_is_no_folder_of_an_endpoint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"expected the folder of serve\.endpoint"):
        check_host(Config(serve=Serve(endpoint=f"ipc://{tmp_path}/file/infer.sock")))


def test_config_check_fails_where_the_daemon_would_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "superbrain.toml"
    file.write_text('[serve]\ngroup = "nosuchgroup"\n')
    assert main(["config", "check", "--config", str(file)]) == 1
    told = capsys.readouterr().err
    assert "nosuchgroup" in told
    assert "groupadd" in told
    assert load_config(file, environment={}).serve.group == "nosuchgroup"  # a backup of elsewhere
