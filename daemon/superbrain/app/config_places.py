"""Which places can be meant: whole paths, folders apart from each other, an endpoint to bind.

The daemon looks through all of the inbox, a restore replaces all of the state folder, those who may
ask come into the runtime folder, and the trust folder is believed. So none of the four may be
another one or lie in another one, symbolic links followed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from superbrain.app.config_keys import Misfit, values

if TYPE_CHECKING:
    from superbrain.app.config import Config

FOLDERS: Final = ("paths.inbox", "paths.state", "paths.runtime", "paths.trust")
WHOLE: Final = (*FOLDERS, "tcp.secret_key", "tcp.clients")
SOCKET_PATH_LIMIT: Final = 107
_IPC: Final = "ipc://"
_APART: Final = (
    "Give each of paths.inbox, paths.state, paths.runtime and paths.trust a folder of its own, "
    "none of them in another"
)


def misplaced(config: Config) -> Iterator[Misfit]:
    """Say which places cannot be meant."""
    unusable = list(_not_whole(config))
    yield from unusable
    if not unusable:
        yield from _not_apart(config)
        yield from _lanes(config)
        yield from _endpoint(config)


def _not_whole(config: Config) -> Iterator[Misfit]:
    found = values(config)
    for key in (*WHOLE, *(["health.path"] if config.health.path else [])):
        path = found[key]
        if not path.startswith("/") or "\0" in path:
            yield Misfit(
                (key,),
                f"expected {key} to be an absolute path, found {path!r}",
                "Name the whole path, from / on",
            )


def _not_apart(config: Config) -> Iterator[Misfit]:
    found = values(config)
    real = {key: Path(os.path.realpath(found[key])) for key in FOLDERS}
    shown = {
        key: found[key] if os.path.normpath(found[key]) == str(path) else f"{found[key]} ({path})"
        for key, path in real.items()
    }
    for one, other in itertools.combinations(FOLDERS, 2):
        if real[one] == real[other]:
            expected = f"expected {one} and {other} to be two folders"
            yield Misfit((one, other), f"{expected}, found {shown[one]} for both", _APART)
    for one, other in itertools.permutations(FOLDERS, 2):
        if real[one] in real[other].parents:
            message = f"expected {other} outside {one}, found {shown[other]} in {shown[one]}"
            yield Misfit((other, one), message, _APART)


def _lanes(config: Config) -> Iterator[Misfit]:
    longest = str(config.lanes_path / "999999.lane")
    if len(longest) > SOCKET_PATH_LIMIT:
        yield Misfit(
            ("paths.runtime",),
            f"paths.runtime makes socket paths of {len(longest)} characters, "
            f"the kernel allows {SOCKET_PATH_LIMIT}",
            "Choose a shorter runtime folder (with --root, a shorter root)",
        )


def _endpoint(config: Config) -> Iterator[Misfit]:
    endpoint, keys = config.serve.endpoint, ("serve.endpoint",)
    path = endpoint.removeprefix(_IPC)
    if not endpoint:
        return
    if not endpoint.startswith(f"{_IPC}/") or path.endswith("/") or "\0" in path:
        expected = "expected serve.endpoint like ipc:///run/superbrain/infer.sock"
        yield Misfit(keys, f"{expected}, found {endpoint!r}", _endpoint_mend(endpoint))
    elif len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        message = f"serve.endpoint makes a socket path of {len(os.fsencode(path))} bytes"
        mend = "Choose a shorter path"
        yield Misfit(keys, f"{message}, the kernel allows {SOCKET_PATH_LIMIT}", mend)
    elif os.path.realpath(path) == os.path.realpath(config.control_endpoint.removeprefix(_IPC)):
        message = (
            f"expected serve.endpoint beside the control socket, found {endpoint}, which is it"
        )
        yield Misfit(keys, message, "Choose another name; only operators come to that socket")


def _endpoint_mend(endpoint: str) -> str:
    if endpoint.startswith("tcp://"):
        return (
            "For TCP leave serve.endpoint out and say "
            f'[tcp] endpoints = ["{endpoint}"]: docs/access.md'
        )
    return "Name the socket's whole path after ipc://, or nothing for infer.sock as usual"
