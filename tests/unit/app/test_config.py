"""The configuration: strict, with sentences that name file, key and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbrain.app.config import Config, ConfigError, load_config


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "superbrain.toml"
    path.write_text(text)
    return path


def test_without_a_file_the_defaults_of_an_appliance_hold() -> None:
    config = Config()
    assert config.endpoint == "ipc:///run/superbrain/infer.sock"
    assert str(config.inbox_path) == "/var/lib/superbrain/inbox"


def test_a_root_puts_every_folder_below_it(tmp_path: Path) -> None:
    config = load_config(root=tmp_path)
    places = (config.inbox_path, config.store_path, config.trust_path, config.lanes_path)
    assert all(place.is_relative_to(tmp_path) for place in places)


def test_a_file_counts_also_with_a_root(tmp_path: Path) -> None:
    path = written(tmp_path, "[deploy]\nprobation_s = 7")
    assert load_config(path, tmp_path).deploy.probation_s == 7


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[deploy]\nprobation = 7", "deploy.probation is unknown, did you mean deploy.probation_s"),
        ("[deplyo]", "deplyo is unknown, did you mean deploy?"),
        ("deploy = 3", "deploy"),
        ("[deploy]\nparallel = 'two'", "parallel"),
        ("[deploy]\nparallel = 0", "deploy.parallel of 1 to 64"),
        ("[log]\nlevel = 'loud'", "'loud'"),
        ("[sandbox]\nrequire = 'most'", "require"),
        ("[sandbox]\nmemory = 1", "memory"),
        ("[sandbox]\ndescriptors = 3", "sandbox.descriptors of 64 to"),
        ("[sandbox]\nscratch_mib = 0", "sandbox.scratch_mib of 1 to"),
        ("this is no TOML", "is not TOML"),
        ("[tcp]\nendpoints = ['tcp://host:5555']", "tcp://0.0.0.0:5555"),
        ("[tcp]\nendpoints = ['tcp://0.0.0.0:0']", "'tcp://0.0.0.0:0'"),
        ("[tcp]\nendpoints = ['tcp://[::1:5555']", "tcp.endpoints"),
        ("[tcp]\nendpoints = ['tcp://300.0.0.1:5555']", "tcp.endpoints"),
        ("[tcp]\nendpoints = ['ipc:///tmp/x']", "tcp.endpoints"),
        ("[tcp]\nmax_clients = 0", "tcp.max_clients of 1 to"),
        ("[tcp]\nmemory_bytes = 1000", "tcp.memory_bytes of 536870912 to"),
        ("[serve]\ngruop = 'x'", "gruop"),
        ("[metrics]\nfile = 'superbrain.prom'", "metrics.file to be an absolute path"),
        ("[metrics]\nfile = '/tmp/superbrain.txt'", "that ends in .prom"),
        ("[metrics]\nlisten = 'localhost:9464'", "metrics.listen like 127.0.0.1:9464"),
        ("[metrics]\nlisten = '127.0.0.1:70000'", "metrics.listen like 127.0.0.1:9464"),
        ("[metrics]\nlisten = '127.0.0.1'", "metrics.listen like 127.0.0.1:9464"),
        ("[metrics]\nlisten = '0.0.0.0:9464'", "can be reached from other hosts"),
        ("[metrics]\nlisten = '[::]:9464'", "can be reached from other hosts"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, found: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=r"superbrain\.toml") as caught:
        load_config(path)
    assert found in str(caught.value)


def test_a_missing_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "nowhere.toml")


def test_a_runtime_folder_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="socket paths of"):
        load_config(root=tmp_path / ("x" * 100))


def test_every_key_is_in_the_operations_manual() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    for section in Config.__struct_fields__:
        for key in getattr(Config(), section).__struct_fields__:
            assert f"`{section}.{key}`" in manual


@pytest.mark.parametrize("address", ["0.0.0.0:5555", "[::]:5555", "[fe80::1]:1", "10.1.2.3:65535"])
def test_an_address_with_a_port_is_a_tcp_endpoint(tmp_path: Path, address: str) -> None:
    path = written(tmp_path, f'[tcp]\nendpoints = ["tcp://{address}"]')
    assert load_config(path).tcp.endpoints == [f"tcp://{address}"]


def test_tcp_is_off_by_default() -> None:
    assert Config().tcp.endpoints == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ("listen = '127.0.0.1:9464'", ("127.0.0.1", 9464)),
        ("listen = '[::1]:9464'", ("::1", 9464)),
        ("listen = '0.0.0.0:9464'\nremote = true", ("0.0.0.0", 9464)),
    ],
)
def test_metrics_are_served_on_the_loopback_or_where_that_is_meant(
    tmp_path: Path, text: str, address: tuple[str, int] | None
) -> None:
    assert load_config(written(tmp_path, f"[metrics]\n{text}")).metrics_address == address


def test_metrics_are_written_nowhere_unless_told(tmp_path: Path) -> None:
    assert Config().metrics_path is None
    path = load_config(written(tmp_path, "[metrics]\nfile = '/x/superbrain.prom'")).metrics_path
    assert path == Path("/x/superbrain.prom")
