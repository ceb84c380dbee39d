"""The group whose members may ask: found by name, and given folders whose sockets it may use.

A folder is given to the group with the setgid bit, so that every socket made in it later belongs
to the group from its first moment. What cannot be done is an error: the alternative would be
sockets that the wrong people may use, or nobody.
"""

from __future__ import annotations

import grp
import os
import stat
from typing import TYPE_CHECKING, Final

from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from pathlib import Path

FOLDER_MODE: Final = 0o2750


class GroupError(SuperbrainError):
    """The group does not exist, or a folder cannot be given to it."""


def group_id(name: str) -> int:
    """Find a group of this host.

    Raises:
        GroupError: there is none of this name.
    """
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise GroupError(
            f"expected serve.group to name a group of this host, found {name!r}, which is none",
            mend=f"Make it (groupadd --system {name}), or name another one",
        ) from error


def share_folder(folder: Path, group: int) -> None:
    """Let the group's members enter a folder and use what is made in it from now on.

    Raises:
        GroupError: it could not be given to the group.
    """
    try:
        os.chown(folder, -1, group)
        folder.chmod(FOLDER_MODE)
        found = folder.stat()
    except OSError as error:
        raise _refused(folder, group, error.strerror or str(error)) from error
    if (found.st_gid, stat.S_IMODE(found.st_mode)) != (group, FOLDER_MODE):
        what = f"group {found.st_gid} and mode {stat.S_IMODE(found.st_mode):04o}"
        raise _refused(folder, group, what)


def _refused(folder: Path, group: int, found: str) -> GroupError:
    return GroupError(
        f"{folder}: expected to give it to the group {_name(group)} with mode "
        f"{FOLDER_MODE:04o}, found: {found}",
        mend="The service's user must own the folder and be a member of the group "
        "(as a service by the drop-in group.conf, see docs/access.md; else usermod -aG)",
    )


def _name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
