"""The daemon's configuration: one frozen structure, read from one TOML file, checked once.

Unknown keys are errors; the message names the file, the key and what was expected. Without a file
the defaults below hold, which are those of an installed appliance. `superbraind --root DIR` puts
every folder and socket below DIR instead, for development and tests. A variable such as
`SUPERBRAIN__DEPLOY__PROBATION_S=120` in the environment counts more than the file.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from superbrain.app.addresses import HTTP_ADDRESS
from superbrain.app.config_rules import misfits
from superbrain.app.config_sources import VARIABLES, Sources, variable_name, variables
from superbrain.domain.engine import BuilderPolicy
from superbrain.domain.outage import OutagePolicy
from superbrain.domain.policy import ErrorBudget
from superbrain.domain.records import InferenceLogPolicy, TracesPolicy
from superbrain.domain.sandbox import SandboxPolicy
from superbrain.domain.watch import Reproof, Rules, Watch
from superbrain.wire.errors import SuperbrainError

DEFAULT_CONFIG = Path("/etc/superbrain/superbrain.toml")
_AT: Final = re.compile(r"at `\$\.(\w+\.\w+)")
_LISTED: Final = "superbrain config explain lists every key with its meaning"


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
    watched while the old one stays warm; `parallel`: how many bundles load or prove at once;
    `memory_mib`: what all models together may hold of the host's memory, 0 for all there is.
    """

    rescan_s: float = 5.0
    settle_s: float = 3.0
    probation_s: float = 60.0
    parallel: int = 2
    memory_mib: int = 0


class HealthReport(_Section, frozen=True):
    """Seconds between two reports; empty `path` means `health.json` in the runtime folder."""

    interval_s: float = 2.0
    path: str = ""


class MetricsOut(_Section, frozen=True):
    """Where metrics go; nowhere by default.

    `file`: replaced at every report, for node_exporter's textfile collector; `listen`: IP address
    and port of an HTTP endpoint; `remote`: whether other hosts may be able to reach that address.
    """

    file: str = ""
    listen: str = ""
    remote: bool = False


class Log(_Section, frozen=True):
    """`level` is debug, info, warning or error."""

    level: str = "info"


class Config(_Section, frozen=True):
    """Everything that can be configured."""

    paths: Paths = Paths()
    serve: Serve = Serve()
    tcp: Tcp = Tcp()
    deploy: Deploy = Deploy()
    outage: OutagePolicy = OutagePolicy()
    budget: ErrorBudget = ErrorBudget()
    sandbox: SandboxPolicy = SandboxPolicy()
    builder: BuilderPolicy = BuilderPolicy()
    watch: Watch = Watch()
    proof: Reproof = Reproof()
    health: HealthReport = HealthReport()
    metrics: MetricsOut = MetricsOut()
    log: Log = Log()
    inference_log: InferenceLogPolicy = InferenceLogPolicy()
    traces: TracesPolicy = TracesPolicy()

    @property
    def rules(self) -> Rules:
        """By which the serving of models is judged."""
        return Rules(self.budget, self.watch, self.proof, self.deploy.probation_s)

    @property
    def digest(self) -> str:
        """Names a configuration, so that the trail shows when it was another one."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

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
    def engines_path(self) -> Path:
        """The cache of built engines."""
        return Path(self.paths.state) / "engines"

    @property
    def inference_log_path(self) -> Path:
        """The file of the inference log."""
        return Path(self.inference_log.path or f"{self.paths.state}/inference/inference.jsonl")

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

    @property
    def metrics_path(self) -> Path | None:
        """The file of the metrics."""
        return Path(self.metrics.file) if self.metrics.file else None

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are served by HTTP: IP address and port."""
        found = HTTP_ADDRESS.fullmatch(self.metrics.listen)
        return (found[1] or found[2], int(found[3])) if found else None


def load_config(
    path: Path | None = None,
    root: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Read and check the configuration.

    Args:
        path: the TOML file; None means the installed one if it exists, else the defaults.
        root: put all folders below this one.
        environment: whose `SUPERBRAIN__SECTION__KEY` count more than the file; None: the process's.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a value of the wrong type or range.
    """
    raw = None if root and not path else _read(path or DEFAULT_CONFIG, required=path is not None)
    named = variables(os.environ if environment is None else environment)
    sources = Sources(
        file=None if raw is None else path or DEFAULT_CONFIG,
        variables={variable.key: variable for variable in named},
        root=root,
    )
    _check_known(raw or {}, sources)
    config = _converted(sources.added_to(raw or {}), sources)
    if root is not None:
        base = root.resolve()
        paths = Paths(*(str(base / name) for name in ("inbox", "state", "run", "trust")))
        config = msgspec.structs.replace(config, paths=paths)
    for misfit in misfits(config):
        raise ConfigError(f"{sources.of(*misfit.keys)}: {misfit.message}", mend=misfit.mend)
    return config


def known_keys() -> list[str]:
    """Every key there is, as `section.key`."""
    sections = msgspec.to_builtins(Config())
    return [f"{section}.{key}" for section, keys in sections.items() for key in keys]


def nearest(key: str) -> str:
    """Give the key or section that `key` was probably meant to be; empty when none is like it."""
    known = known_keys()
    name = key.rpartition(".")[2]
    same = [one for one in known if one.rpartition(".")[2] == name]
    if len(same) == 1:
        return same[0]
    candidates = known if "." in key else sorted({one.partition(".")[0] for one in known})
    return next(iter(difflib.get_close_matches(key, candidates, n=1)), "")


def _read(path: Path, *, required: bool) -> dict[str, Any] | None:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return None
        raise ConfigError(f"the configuration {path} does not exist") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration {path} is not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error}") from error


def _check_known(raw: dict[str, Any], sources: Sources) -> None:
    for key in _unknown(raw):
        near = nearest(key)
        hint = f", did you mean {near}?" if near else ""
        raise ConfigError(f"{sources.of()}: the key {key} is unknown{hint}", mend=_LISTED)
    for key in sorted(sources.variables.keys() - known_keys()):
        near = nearest(key)
        hint = f", did you mean {variable_name(near)}?" if "." in near else ""
        expected = f"expected {VARIABLES}SECTION__KEY of a known key"
        raise ConfigError(f"{sources.of(key)}: {expected}{hint}", mend=_LISTED)


def _unknown(raw: dict[str, Any]) -> list[str]:
    known = known_keys()
    sections = {key.partition(".")[0] for key in known}
    unknown = [section for section in raw if section not in sections]
    for section in raw.keys() - unknown:
        if isinstance(raw[section], dict):
            unknown += [f"{section}.{key}" for key in raw[section]]
    return [key for key in unknown if key not in known]


def _converted(raw: dict[str, Any], sources: Sources) -> Config:
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        found = _AT.search(str(error))
        key = found[1] if found else ""
        raise ConfigError(
            f"{sources.of(key)} does not fit: {error}",
            mend=f"superbrain config explain {key or 'KEY'} says what it takes",
        ) from error
