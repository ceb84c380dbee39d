"""Who may use the Unix sockets: members of the configured group, seen as real other users."""

from __future__ import annotations

import grp
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.appliance import Appliance
from tests.support.releases import go_live

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may become other users"),
]

STRANGER = 54321  # a user id that nobody has
SOURCE = Path(__file__).resolve().parents[2] / "daemon"
_ASK = """
import json, os, sys
endpoint, lane, user, group, source = sys.argv[1:]
sys.path.insert(0, source)
import numpy, socket
from superbrain.client import Client
os.setgroups([])
os.setresgid(*[int(group)] * 3)
os.setresuid(*[int(user)] * 3)
found = {}
try:
    with Client(endpoint, 60, lanes=False) as client:
        answer = client.infer("adder", {"x": numpy.zeros((1, 4), numpy.float32)})
    found["gateway"] = float(answer["y"][0, 0])
except Exception as error:
    found["gateway"] = f"{type(error).__name__}: {error}"
with socket.socket(socket.AF_UNIX) as plain:
    try:
        plain.connect(lane)
        found["lane"] = plain.recv(1)[0]
    except OSError as error:
        found["lane"] = type(error).__name__
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def group() -> grp.struct_group:
    """Give a group of this host that is not the daemon's own."""
    return next(found for found in grp.getgrall() if found.gr_gid not in {0, os.getegid()})


@pytest.fixture(scope="module")
def appliance(
    tmp_path_factory: pytest.TempPathFactory, group: grp.struct_group
) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("group")
    with Appliance(folder, settings=f'[serve]\ngroup = "{group.gr_name}"\n') as appliance:
        appliance.root.chmod(0o755)
        go_live(appliance, 1)
        yield appliance


def asked(appliance: Appliance, user: int, group: int) -> dict[str, object]:
    """Ask as another user, by the gateway and on the lane itself."""
    (lane,) = (appliance.root / "run" / "lanes").glob("*.lane")
    arguments = [appliance.endpoint, str(lane), str(user), str(group), str(SOURCE)]
    done = subprocess.run(
        [sys.executable, "-c", _ASK, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_member_is_answered_by_gateway_and_lane(
    appliance: Appliance, group: grp.struct_group
) -> None:
    assert asked(appliance, STRANGER, group.gr_gid) == {"gateway": 1.0, "lane": 1}


def test_anybody_else_is_told_which_group_may(
    appliance: Appliance, group: grp.struct_group
) -> None:
    found = asked(appliance, STRANGER, STRANGER)
    assert found["lane"] == "PermissionError"
    assert str(found["gateway"]).startswith("Unavailable: the user with id 54321 may not connect")
    assert f"members of the group {group.gr_name}" in str(found["gateway"])
    assert f"usermod -aG {group.gr_name}" in str(found["gateway"])


def test_sockets_and_folders_are_the_groups_and_nobody_elses(
    appliance: Appliance, group: grp.struct_group
) -> None:
    run = appliance.root / "run"
    for place in (run, run / "lanes"):
        assert (place.stat().st_gid, stat.S_IMODE(place.stat().st_mode)) == (group.gr_gid, 0o2750)
    (lane,) = (run / "lanes").glob("*.lane")
    for place in (run / "infer.sock", lane):
        assert (place.stat().st_gid, stat.S_IMODE(place.stat().st_mode)) == (group.gr_gid, 0o660)
    assert not stat.S_IMODE((run / "control.sock").stat().st_mode) & 0o077


@pytest.mark.parametrize(
    ("as_user", "name", "found"),
    [
        (0, "nobody-has-this-group", "'nobody-has-this-group', which is none"),
        (STRANGER, "", "expected to give it to the group"),
    ],
    ids=["no such group", "not a member"],
)
def test_a_group_that_cannot_be_set_is_a_refusal_to_start(
    tmp_path: Path, group: grp.struct_group, as_user: int, name: str, found: str
) -> None:
    settings = f'[serve]\ngroup = "{name or group.gr_name}"\n'
    with Appliance(tmp_path, settings=settings, start=False) as appliance:
        for path in (appliance.root, *appliance.root.rglob("*")):
            os.chown(path, as_user, as_user)
        done = subprocess.run(
            [
                *("setpriv", f"--reuid={as_user}", f"--regid={as_user}", "--clear-groups"),
                *(sys.executable, "-m", "superbrain.app.main", *appliance.arguments),
            ],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 1
        assert found in done.stderr
        assert not (appliance.root / "run" / "infer.sock").exists()
