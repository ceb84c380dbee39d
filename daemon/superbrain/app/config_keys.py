"""What every configuration key means, which numbers it takes, and what applies a change of it.

One table, by which a configuration is judged and from which `superbrain config explain`, the
commented default file and the table in docs/operations.md are made; a test holds it complete.

>>> [change.key for change in changes(Config(), Config(log=Log(level="debug")))]
['log.level']
>>> KEYS["budget.error_share"].within.holds(2)
False
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from superbrain.app.config import Config

Applies = Literal["reload", "restart"]

_HOUR_S: Final = 3_600
_DAY_S: Final = 24 * _HOUR_S
_WEEK_S: Final = 7 * _DAY_S
_MOST_MIB: Final = 16 << 20  # 16 TiB: more than any host of today has


class Within(NamedTuple):
    """The numbers that a key takes, both ends included."""

    least: float
    most: float

    @property
    def text(self) -> str:
        """Say it in words."""
        return f"{self.least} to {self.most}"

    def holds(self, number: float) -> bool:
        """Whether it is one of them; what is not a number is none."""
        return self.least <= number <= self.most


class Key(NamedTuple):
    """What a key means, which numbers it takes, and what applies a change of it.

    `superbrain reload` does or a restart; `within` is None where a key takes no number.
    """

    meaning: str
    within: Within | None = None
    applies: Applies = "restart"


class Misfit(NamedTuple):
    """Values that cannot be meant: of which keys, what was expected and found, what to do."""

    keys: tuple[str, ...]
    message: str
    mend: str = ""


class Change(NamedTuple):
    """One key that differs between two configurations."""

    key: str
    before: object
    after: object
    applies: Applies


KEYS: Final[dict[str, Key]] = {
    "paths.inbox": Key("the folder people drop bundles into"),
    "paths.state": Key("the private folder of store and journal"),
    "paths.runtime": Key("the folder of sockets and health report"),
    "paths.trust": Key("the folder of trusted keys"),
    "serve.endpoint": Key(
        "the public ZeroMQ endpoint, as ipc:///run/superbrain/infer.sock; empty: `infer.sock` in "
        "the runtime folder"
    ),
    "serve.group": Key(
        "whose members may ask, by that socket and by lanes; empty: the daemon's own group"
    ),
    "tcp.endpoints": Key('where TCP is listened for, as ["tcp://0.0.0.0:5555"]; none: it is off'),
    "tcp.secret_key": Key("the server's own key pair"),
    "tcp.clients": Key("the folder of the public keys that may connect"),
    "tcp.max_clients": Key("how many TCP connections at the same time", Within(1, 10_000)),
    "tcp.requests_per_client": Key(
        "how many requests of one TCP client may be under way", Within(1, 10_000)
    ),
    "tcp.memory_bytes": Key(
        "what the TCP face's process may use, its address space counted", Within(512 << 20, 1 << 40)
    ),
    "deploy.rescan_s": Key(
        "seconds between two looks through the inbox; the kernel's hints come on top",
        Within(0.1, _HOUR_S),
    ),
    "deploy.settle_s": Key(
        "how long a file must be left alone before its content is held against it",
        Within(0, _HOUR_S),
    ),
    "deploy.probation_s": Key(
        "how long a new version is watched while the old one stays warm", Within(0, _WEEK_S)
    ),
    "deploy.parallel": Key("how many bundles load or prove at the same time", Within(1, 64)),
    "deploy.memory_mib": Key(
        "what all models together may hold of the host's memory; 0: all there is",
        Within(0, _MOST_MIB),
    ),
    "outage.allow": Key(
        "whether a version may stop where the next one does not fit beside it: bundle (as the "
        "bundle says), never or always"
    ),
    "outage.limit_s": Key(
        "seconds without an answer after which the next version is given up and the old one "
        "returns",
        Within(0.1, _DAY_S),
    ),
    "budget.crashes": Key(
        "worker deaths within the window before the previous version comes back", Within(0, 1_000)
    ),
    "budget.error_share": Key(
        "share of requests that may end INTERNAL before it does", Within(0, 1)
    ),
    "budget.min_requests": Key("requests before that share is judged", Within(0, 1_000_000)),
    "budget.window_s": Key("the window for deaths, in seconds", Within(1, _WEEK_S)),
    "sandbox.require": Key(
        "the least level at which a worker loads a bundle: none, partial or full"
    ),
    "sandbox.memory_mib": Key(
        "private memory of one worker; 0: three quarters of the host's", Within(0, _MOST_MIB)
    ),
    # With fewer of these two a worker does not even start.
    "sandbox.threads": Key("threads of one worker", Within(16, 65_536)),
    "sandbox.descriptors": Key("file descriptors of one worker", Within(64, 1 << 20)),
    "sandbox.scratch_mib": Key(
        "what a worker's scratch folder may hold, and each file in it", Within(1, _MOST_MIB)
    ),
    "builder.time_limit_s": Key("how long the build of one engine may take", Within(1, _WEEK_S)),
    "builder.memory_mib": Key(
        "private memory of a builder; 0: half of the host's", Within(0, _MOST_MIB)
    ),
    "builder.workspace_mib": Key(
        "GPU memory that a layer may use for itself while it runs", Within(1, _MOST_MIB)
    ),
    "builder.cache_mib": Key("what the cache of built engines may take", Within(1, _MOST_MIB)),
    "builder.priority": Key(
        "idle: builders get a quarter of the processors when nobody else wants them; "
        "normal: they share all"
    ),
    "watch.hang_grace_s": Key(
        "an execution that takes so much longer than the bundle's `request_timeout_ms` hangs",
        Within(0, _HOUR_S),
    ),
    "watch.warm_up_s": Key(
        "what a worker takes in its first seconds is not called a leak", Within(0, _WEEK_S)
    ),
    "watch.sample_s": Key(
        "seconds between two samples of memory, descriptors and threads", Within(0.1, _HOUR_S)
    ),
    "watch.leak_share": Key(
        "steady growth beyond this share of what it held is a leak", Within(0.01, 100)
    ),
    "watch.leak_mb": Key("growth of less memory than this is none", Within(0, _MOST_MIB)),
    "watch.drift_factor": Key(
        "slower than proven by this factor for long is a drift", Within(1.01, 1_000)
    ),
    "watch.drift_s": Key("for how many seconds", Within(0, _WEEK_S)),
    "watch.baseline_s": Key(
        "a worker's first seconds, whose times it is held against later", Within(0, _WEEK_S)
    ),
    "watch.drift_spends_budget": Key("a drift within probation brings the previous version back"),
    "proof.every_s": Key(
        "seconds between two golden cases run again in each serving worker; 0: never",
        Within(0, _WEEK_S),
    ),
    "proof.postpone_s": Key(
        "how long such a case waits for the worker to be idle", Within(0, _HOUR_S)
    ),
    # `superbrain health` believes no report that is older than a minute.
    "health.interval_s": Key("seconds between two health reports", Within(0.1, 30)),
    "health.path": Key("where the report goes; empty: `health.json` in the runtime folder"),
    "metrics.file": Key(
        "a file of metrics for node_exporter, `/…/superbrain.prom`; empty: none is written"
    ),
    "metrics.listen": Key(
        'where metrics and probes are served by HTTP, as "127.0.0.1:9464"; empty: it is off'
    ),
    "metrics.remote": Key("whether that may be an address that other hosts can reach"),
    "log.level": Key("debug, info, warning or error", applies="reload"),
    "inference_log.to": Key(
        'where single requests are told of, a JSON line each: "file", "journal"; empty: nowhere'
    ),
    "inference_log.share": Key(
        "the share of all requests that has a line, picked at random", Within(0, 1)
    ),
    "inference_log.failures_per_s": Key(
        "how many failed requests a second of each process have one beside that; 0: none",
        Within(0, 100_000),
    ),
    "inference_log.payload_bytes": Key(
        "how much of a request's inputs a line may hold, only in a file; 0: nothing of them",
        Within(0, 1 << 20),
    ),
    "inference_log.path": Key("the file; empty: `inference/inference.jsonl` in the state folder"),
    "inference_log.file_mib": Key(
        "how large the file gets before it is put aside", Within(1, 1 << 20)
    ),
    "inference_log.files": Key(
        "how many of them are kept, the one that is written included", Within(1, 1_000)
    ),
    "traces.endpoint": Key(
        "URL of an OTLP collector for spans, as http://127.0.0.1:4318; empty: what "
        "OTEL_EXPORTER_OTLP_ENDPOINT says, if anything"
    ),
    "traces.protocol": Key("http/protobuf or grpc"),
    "traces.ratio": Key(
        "the share of requests that a trace is begun for, of those whose caller names none",
        Within(0, 1),
    ),
}


def values(config: Config) -> dict[str, Any]:
    """Give every key with its value, in the order of the file."""
    sections = msgspec.to_builtins(config)
    return {f"{s}.{k}": value for s, keys in sections.items() for k, value in keys.items()}


def changes(before: Config, after: Config) -> list[Change]:
    """Say which keys differ, and what applies each."""
    old, new = values(before), values(after)
    return [
        Change(key, old[key], value, KEYS[key].applies)
        for key, value in new.items()
        if old[key] != value
    ]


def default_file(usual: Config) -> str:
    """Give the commented file that an installation begins with: every key with its usual value."""
    return "\n".join(_default_lines(usual)) + "\n"


def _default_lines(usual: Config) -> Iterator[str]:
    yield "# superbrain. Every key is optional and shown with its default. `superbrain config`"
    yield "# explains and judges it; `superbrain reload` reads it again."
    section = ""
    for key, value in values(usual).items():
        where, _, name = key.partition(".")
        if where != section:
            section = where
            yield ""
            yield f"[{section}]"
        yield f"# {KEYS[key].meaning}"
        yield f"#{name} = {toml_value(value)}"


def toml_value(value: object) -> str:
    """Write a value as TOML."""
    return msgspec.json.encode(value).decode()
