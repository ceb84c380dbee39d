"""The daemon's configuration: one frozen structure, read from one TOML file, checked once.

Unknown keys are errors; the message names the file, the key and what was expected. Without a file
the defaults below hold, which are those of an installed appliance. `superbraind --root DIR` puts
every folder and socket below DIR instead, for development and tests.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from pathlib import Path

import msgspec

from superbrain.domain.policy import ErrorBudget
from superbrain.domain.sandbox import SandboxPolicy
from superbrain.domain.watch import Reproof, Rules, Watch
from superbrain.wire.errors import SuperbrainError

DEFAULT_CONFIG = Path("/etc/superbrain/superbrain.toml")
SOCKET_PATH_LIMIT = 107
LEAST_THREADS = 16
LEAST_DESCRIPTORS = 64
MIN_TCP_MEMORY_BYTES = 512 << 20
_TCP_ADDRESS = re.compile(r"tcp://(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})")


class ConfigError(SuperbrainError):
    """The configuration cannot be used."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all sections."""


class Paths(_Section, frozen=True):
    """Folders: where bundles are dropped, what the daemon keeps, its sockets, the trusted keys."""

    inbox: str = "/var/lib/superbrain/inbox"
    state: str = "/var/lib/superbrain/state"
    runtime: str = "/run/superbrain"
    trust: str = "/etc/superbrain/trust"


class Serve(_Section, frozen=True):
    """The public socket and who may use it.

    `endpoint`: empty means `infer.sock` in the runtime folder; `group`: whose members may ask, by
    that socket and by lanes; empty means the group that the daemon runs as.
    """

    endpoint: str = ""
    group: str = ""


class Tcp(_Section, frozen=True):
    """The TCP face; off without `endpoints`.

    `secret_key`: the server's own certificate; `clients`: the folder of the public keys that may
    connect; `max_clients`: how many connections; `requests_per_client`: how many of one client's
    requests may be under way; `memory_bytes`: what the face's process may use at most.
    """

    endpoints: list[str] = []
    secret_key: str = "/etc/superbrain/tcp/server.key"  # noqa: S105 - a path
    clients: str = "/etc/superbrain/tcp/clients"
    max_clients: int = 256
    requests_per_client: int = 64
    memory_bytes: int = 2 << 30


class Deploy(_Section, frozen=True):
    """How deployments are run.

    `rescan_s`: seconds between two looks through the inbox; `settle_s`: how long a file must be
    left alone before its content is held against it; `probation_s`: how long a new version is
    watched while the old one stays warm; `parallel`: how many bundles load or prove at once.
    """

    rescan_s: float = 5.0
    settle_s: float = 3.0
    probation_s: float = 60.0
    parallel: int = 2


class HealthReport(_Section, frozen=True):
    """Seconds between two reports; empty `path` means `health.json` in the runtime folder."""

    interval_s: float = 2.0
    path: str = ""


class Log(_Section, frozen=True):
    """`level` is debug, info, warning or error."""

    level: str = "info"


class Config(_Section, frozen=True):
    """Everything that can be configured."""

    paths: Paths = Paths()
    serve: Serve = Serve()
    tcp: Tcp = Tcp()
    deploy: Deploy = Deploy()
    budget: ErrorBudget = ErrorBudget()
    sandbox: SandboxPolicy = SandboxPolicy()
    watch: Watch = Watch()
    proof: Reproof = Reproof()
    health: HealthReport = HealthReport()
    log: Log = Log()

    @property
    def rules(self) -> Rules:
        """By which the serving of models is judged."""
        return Rules(self.budget, self.watch, self.proof, self.deploy.probation_s)

    @property
    def inbox_path(self) -> Path:
        """The folder people drop bundles into."""
        return Path(self.paths.inbox)

    @property
    def store_path(self) -> Path:
        """The private copy of every bundle."""
        return Path(self.paths.state) / "store"

    @property
    def journal_path(self) -> Path:
        """The SQLite file."""
        return Path(self.paths.state) / "journal.sqlite"

    @property
    def chains_path(self) -> Path:
        """The accepted trust updates."""
        return Path(self.paths.state) / "trust"

    @property
    def trust_path(self) -> Path:
        """The folder of trusted keys."""
        return Path(self.paths.trust)

    @property
    def lanes_path(self) -> Path:
        """The folder of the workers' lanes."""
        return Path(self.paths.runtime) / "lanes"

    @property
    def scratch_path(self) -> Path:
        """The folder of the workers' scratch folders."""
        return Path(self.paths.state) / "scratch"

    @property
    def endpoint(self) -> str:
        """The public ZeroMQ endpoint."""
        return self.serve.endpoint or f"ipc://{self.paths.runtime}/infer.sock"

    @property
    def control_endpoint(self) -> str:
        """The control socket's ZeroMQ endpoint."""
        return f"ipc://{self.paths.runtime}/control.sock"

    @property
    def health_path(self) -> Path:
        """The file of the health report."""
        return Path(self.health.path or f"{self.paths.runtime}/health.json")


def load_config(path: Path | None = None, root: Path | None = None) -> Config:
    """Read and check the configuration.

    Args:
        path: the TOML file; None means the installed one if it exists, else the defaults.
        root: put all folders below this one.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a value of the wrong type or range.
    """
    config = (
        _read(path or DEFAULT_CONFIG, required=path is not None) if path or not root else Config()
    )
    if root is not None:
        base = root.resolve()
        paths = Paths(*(str(base / name) for name in ("inbox", "state", "run", "trust")))
        config = msgspec.structs.replace(config, paths=paths)
    _check(config, path)
    return config


def _read(path: Path, *, required: bool) -> Config:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if not required:
            return Config()
        raise ConfigError(f"the configuration {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error}") from error
    try:
        return msgspec.convert(tomllib.loads(text), Config)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration {path} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the configuration {path} does not fit: {error}",
            mend="docs/operations.md lists every key with its meaning",
        ) from error


def _check(config: Config, path: Path | None) -> None:
    where = f"the configuration {path or 'defaults'}"
    positive = {
        "deploy.rescan_s": config.deploy.rescan_s,
        "deploy.parallel": config.deploy.parallel,
        "health.interval_s": config.health.interval_s,
        "sandbox.scratch_mib": config.sandbox.scratch_mib,
        "watch.sample_s": config.watch.sample_s,
        "watch.leak_share": config.watch.leak_share,
        "tcp.max_clients": config.tcp.max_clients,
        "tcp.requests_per_client": config.tcp.requests_per_client,
    }
    for key, value in positive.items():
        if value <= 0:
            raise ConfigError(f"{where}: expected {key} above 0, found {value}")
    _check_sandbox(config.sandbox, where)
    if config.watch.drift_factor <= 1:
        found = config.watch.drift_factor
        raise ConfigError(f"{where}: expected watch.drift_factor above 1, found {found}")
    if config.tcp.memory_bytes < MIN_TCP_MEMORY_BYTES:
        raise ConfigError(
            f"{where}: expected tcp.memory_bytes of at least {MIN_TCP_MEMORY_BYTES}, "
            f"found {config.tcp.memory_bytes}"
        )
    for endpoint in config.tcp.endpoints:
        _check_tcp(endpoint, where)
    longest = str(config.lanes_path / "999999.lane")
    if len(longest) > SOCKET_PATH_LIMIT:
        raise ConfigError(
            f"{where}: paths.runtime makes socket paths of {len(longest)} characters, "
            f"the kernel allows {SOCKET_PATH_LIMIT}",
            mend="Choose a shorter runtime folder (with --root, a shorter root)",
        )
    if config.log.level not in ("debug", "info", "warning", "error"):
        raise ConfigError(
            f"{where}: expected log.level debug, info, warning or error, found {config.log.level!r}"
        )


def _check_sandbox(policy: SandboxPolicy, where: str) -> None:
    """Below these a worker does not even start."""
    least = {"threads": LEAST_THREADS, "descriptors": LEAST_DESCRIPTORS, "memory_mib": 0}
    for key, value in least.items():
        found = getattr(policy, key)
        if found < value:
            raise ConfigError(f"{where}: expected sandbox.{key} of {value} or more, found {found}")


def _check_tcp(endpoint: str, where: str) -> None:
    found = _TCP_ADDRESS.fullmatch(endpoint)
    try:
        good = found is not None and 0 < int(found[3]) < 1 << 16
        if found is not None:
            ipaddress.ip_address(found[1] or found[2])
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            f"{where}: expected tcp.endpoints like tcp://0.0.0.0:5555 or tcp://[::]:5555, "
            f"found {endpoint!r}",
            mend="Name an address of this host, not a host name, and a port",
        )
