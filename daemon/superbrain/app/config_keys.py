"""What every configuration key means, and what applies a change of it.

One table, from which `superbrain config explain`, the commented default file and the table in
docs/operations.md are made; a test holds it complete.

>>> [change.key for change in changes(Config(), Config(log=Log(level="debug")))]
['log.level']
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

import msgspec

from superbrain.app.config import Config

Applies = Literal["reload", "restart"]


class Key(NamedTuple):
    """What a key means, and whether `superbrain reload` applies a change or a restart does."""

    meaning: str
    applies: Applies = "restart"


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
    "serve.endpoint": Key("the public ZeroMQ endpoint; empty: `infer.sock` in the runtime folder"),
    "serve.group": Key(
        "whose members may ask, by that socket and by lanes; empty: the daemon's own group"
    ),
    "tcp.endpoints": Key('where TCP is listened for, as ["tcp://0.0.0.0:5555"]; none: it is off'),
    "tcp.secret_key": Key("the server's own key pair"),
    "tcp.clients": Key("the folder of the public keys that may connect"),
    "tcp.max_clients": Key("how many TCP connections at the same time"),
    "tcp.requests_per_client": Key("how many requests of one TCP client may be under way"),
    "tcp.memory_bytes": Key("what the TCP face's process may use, its address space counted"),
    "deploy.rescan_s": Key(
        "seconds between two looks through the inbox; the kernel's hints come on top"
    ),
    "deploy.settle_s": Key(
        "how long a file must be left alone before its content is held against it"
    ),
    "deploy.probation_s": Key("how long a new version is watched while the old one stays warm"),
    "deploy.parallel": Key("how many bundles load or prove at the same time"),
    "deploy.memory_mib": Key(
        "what all models together may hold of the host's memory; 0: all there is"
    ),
    "outage.allow": Key(
        "whether a version may stop where the next one does not fit beside it: bundle (as the "
        "bundle says), never or always"
    ),
    "outage.limit_s": Key(
        "seconds without an answer after which the next version is given up and the old one returns"
    ),
    "budget.crashes": Key("worker deaths within the window before the previous version comes back"),
    "budget.error_share": Key("share of requests that may end INTERNAL before it does"),
    "budget.min_requests": Key("requests before that share is judged"),
    "budget.window_s": Key("the window for deaths, in seconds"),
    "sandbox.require": Key(
        "the least level at which a worker loads a bundle: none, partial or full"
    ),
    "sandbox.memory_mib": Key("private memory of one worker; 0: three quarters of the host's"),
    "sandbox.threads": Key("threads of one worker"),
    "sandbox.descriptors": Key("file descriptors of one worker"),
    "sandbox.scratch_mib": Key("what a worker's scratch folder may hold, and each file in it"),
    "builder.time_limit_s": Key("how long the build of one engine may take"),
    "builder.memory_mib": Key("private memory of a builder; 0: half of the host's"),
    "builder.workspace_mib": Key("GPU memory that a layer may use for itself while it runs"),
    "builder.cache_mib": Key("what the cache of built engines may take"),
    "builder.priority": Key(
        "idle: builders get a quarter of the processors when nobody else wants them; "
        "normal: they share all"
    ),
    "watch.hang_grace_s": Key(
        "an execution that takes so much longer than the bundle's `request_timeout_ms` hangs"
    ),
    "watch.warm_up_s": Key("what a worker takes in its first seconds is not called a leak"),
    "watch.sample_s": Key("seconds between two samples of memory, descriptors and threads"),
    "watch.leak_share": Key("steady growth beyond this share of what it held is a leak"),
    "watch.leak_mb": Key("growth of less memory than this is none"),
    "watch.drift_factor": Key("slower than proven by this factor for long is a drift"),
    "watch.drift_s": Key("for how many seconds"),
    "watch.baseline_s": Key("a worker's first seconds, whose times it is held against later"),
    "watch.drift_spends_budget": Key("a drift within probation brings the previous version back"),
    "proof.every_s": Key(
        "seconds between two golden cases run again in each serving worker; 0: never"
    ),
    "proof.postpone_s": Key("how long such a case waits for the worker to be idle"),
    "health.interval_s": Key("seconds between two health reports"),
    "health.path": Key("where the report goes; empty: `health.json` in the runtime folder"),
    "metrics.file": Key(
        "a file of metrics for node_exporter, `/…/superbrain.prom`; empty: none is written"
    ),
    "metrics.listen": Key(
        'where metrics and probes are served by HTTP, as "127.0.0.1:9464"; empty: it is off'
    ),
    "metrics.remote": Key("whether that may be an address that other hosts can reach"),
    "log.level": Key("debug, info, warning or error", "reload"),
    "inference_log.to": Key(
        'where single requests are told of, a JSON line each: "file", "journal"; empty: nowhere'
    ),
    "inference_log.share": Key("the share of all requests that has a line, picked at random"),
    "inference_log.failures_per_s": Key(
        "how many failed requests a second of each process have one beside that; 0: none"
    ),
    "inference_log.payload_bytes": Key(
        "how much of a request's inputs a line may hold, only in a file; 0: nothing of them"
    ),
    "inference_log.path": Key("the file; empty: `inference/inference.jsonl` in the state folder"),
    "inference_log.file_mib": Key("how large the file gets before it is put aside"),
    "inference_log.files": Key("how many of them are kept, the one that is written included"),
    "traces.endpoint": Key(
        "URL of an OTLP collector for spans, as http://127.0.0.1:4318; empty: what "
        "OTEL_EXPORTER_OTLP_ENDPOINT says, if anything"
    ),
    "traces.protocol": Key("http/protobuf or grpc"),
    "traces.ratio": Key(
        "the share of requests that a trace is begun for, of those whose caller names none"
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


def default_file() -> str:
    """Give the commented file that an installation begins with: every key with its default."""
    return "\n".join(_default_lines()) + "\n"


def _default_lines() -> Iterator[str]:
    yield "# superbrain. Every key is optional and shown with its default. `superbrain config`"
    yield "# explains and judges it; `superbrain reload` reads it again."
    section = ""
    for key, value in values(Config()).items():
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
