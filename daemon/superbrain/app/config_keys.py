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
    "deploy.rescan_s": Key(
        "seconds between two looks through the inbox; the kernel's hints come on top"
    ),
    "deploy.settle_s": Key(
        "how long a file must be left alone before its content is held against it"
    ),
    "deploy.probation_s": Key("how long a new version is watched while the old one stays warm"),
    "deploy.parallel": Key("how many bundles load or prove at the same time"),
    "budget.crashes": Key("worker deaths within the window before the previous version comes back"),
    "budget.error_share": Key("share of requests that may end INTERNAL before it does"),
    "budget.min_requests": Key("requests before that share is judged"),
    "budget.window_s": Key("the window for deaths, in seconds"),
    "health.interval_s": Key("seconds between two health reports"),
    "health.path": Key("where the report goes; empty: `health.json` in the runtime folder"),
    "log.level": Key("debug, info, warning or error", "reload"),
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
