"""What a start has to write or clear away cannot be: the daemon serves all the same, and says so.

Nothing that lies about is worth an answer. A row of `LEFT` says what is left from before; what a
disk that fails does to what is brought back is in test_disk_faults.py and test_full_disk.py.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

import msgspec
import pytest

from superbrain.deploy.journal import Journal
from superbrain.domain.deployment import State
from superbrain.domain.retention import KEPT_DEPLOYMENTS
from superbrain.wire.errors import NotFound, Unavailable
from tests.support.appliance import Appliance
from tests.support.consistency import assert_at_rest
from tests.support.cuts import CUT_DAEMON
from tests.support.releases import answer, go_live, release

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]


def bundles_that_nobody_needs(appliance: Appliance) -> None:
    for digest in ("ab" * 32, "cd" * 32):
        folder = appliance.root / "state/store/bundles" / digest
        folder.mkdir()
        (folder / "MANIFEST.dsse").write_text("of a version that is gone")


def a_long_past(appliance: Appliance) -> None:
    journal = Journal(appliance.root / "state/journal.sqlite")
    live = journal.current("adder")
    assert live is not None
    for number in range(KEPT_DEPLOYMENTS + 5):
        ended = msgspec.structs.replace(
            live, state=State.ABANDONED, version=f"0.{number}.0", digest=f"{number:064x}"
        )
        journal.create(ended, dt.datetime.now(dt.UTC))
    journal.close()


LEFT: dict[str, Callable[[Appliance], None]] = {
    "bundles": bundles_that_nobody_needs,
    "a long past": a_long_past,
}


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("left")) as appliance:
        go_live(appliance, 1)
        yield appliance


def first_after_folders(appliance: Appliance) -> int:
    """Start anew; the number of the first operation after the folders are there."""
    start(appliance, "none 0")
    done = (appliance.root / "orders.done").read_text().splitlines()
    return 2 + max(at for at, line in enumerate(done) if line.startswith("makedirs"))


def start(appliance: Appliance, orders: str) -> None:
    """Start anew on a disk that does as it is told, and wait until the start is over."""
    appliance.stop()
    path = appliance.root / "orders"
    path.write_text(orders)
    before = len(appliance.logged("daemon_ready"))
    appliance.start(CUT_DAEMON, str(path))
    appliance.wait_for(lambda: len(appliance.logged("daemon_ready")) > before, "the start")


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("leave", LEFT.values(), ids=LEFT.keys())
def test_what_a_start_cannot_clear_away_stops_no_answer(
    appliance: Appliance, leave: Callable[[Appliance], None], kind: str
) -> None:
    first = first_after_folders(appliance)
    appliance.stop()
    leave(appliance)
    start(appliance, f"{kind} {first} lasting")
    appliance.wait_live("adder", "1.0.0")
    assert answer(appliance) == 1
    start(appliance, "none 0")
    assert_at_rest(appliance)


def test_what_is_to_be_stopped_and_cannot_be_written_down_keeps_nothing_else_from_serving(
    appliance: Appliance,
) -> None:
    appliance.drop(release(appliance, 1, name="bad"))
    bad = appliance.wait_live("bad", "1.0.0")
    assert_at_rest(appliance)
    revoked = appliance.root / "trust/revoked"
    revoked.mkdir(mode=0o755)
    (revoked / ("ef" * 32)).touch(0o644)  # to read one takes as many operations as another
    first = first_after_folders(appliance)
    appliance.stop()
    (revoked / bad.digest).write_text("stop = true\n")
    start(appliance, f"ENOSPC {first} lasting")
    appliance.wait_live("adder", "1.0.0")
    assert answer(appliance) == 1
    with appliance.client() as client, pytest.raises(Unavailable, match="is not revoked"):
        client.infer("bad", {})
    (appliance.root / "orders").unlink()
    appliance.wait_ended("bad", "1.0.0", "RETIRED")
    with appliance.client() as client, pytest.raises(NotFound):
        client.infer("bad", {})
    assert_at_rest(appliance)
