"""What a good configuration needs of the host that it is for: a group, packages, a folder.

The configuration itself is judged elsewhere, and is read where these may be missing: on a host that
a backup is restored to, or by whoever looks for what is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from superbrain.app.config import ConfigError
from superbrain.app.record_settings import check_packages
from superbrain.host.group import group_id

if TYPE_CHECKING:
    from superbrain.app.config import Config


def check_host(config: Config) -> None:
    """See that this host has what the daemon would not start without.

    Raises:
        SuperbrainError: it lacks something; the message says what.
    """
    if config.serve.group:
        group_id(config.serve.group)
    if config.serve.endpoint:
        _check_endpoint(config)
    check_packages(config.traces)


def _check_endpoint(config: Config) -> None:
    folder = Path(config.serve.endpoint.removeprefix("ipc://")).parent
    if folder in (Path(config.paths.runtime), config.lanes_path) or _may_be(folder):
        return
    raise ConfigError(
        f"expected the folder of serve.endpoint, {folder}, to be there, found none",
        mend="Make it and give it to the service's user, or name a socket in the runtime folder",
    )


def _may_be(folder: Path) -> bool:
    """Whether it is a folder, or one that this user may not see."""
    try:
        return folder.is_dir()
    except PermissionError:
        return True
