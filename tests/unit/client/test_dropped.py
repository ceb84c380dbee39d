"""A client that nobody has closed leaves nothing when it is gone."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from superbrain.client import Client
from superbrain.client.region import Region
from tests.support.echo_host import VERSION_BY_LANE, EchoHost
from tests.support.lone_client import PATIENCE_S

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
CLIENTS = 5


@pytest.fixture
def host(tmp_path: Path) -> Iterator[EchoHost]:
    with EchoHost(tmp_path, lanes=True) as host:
        yield host


def descriptors() -> Counter[str]:
    """What this process has open, by kind; of sockets the host has as many as it likes."""
    gc.collect()
    kinds: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        if os.path.lexists(entry):
            kinds[str(entry.readlink())] += 1
    return Counter({kind: count for kind, count in kinds.items() if "socket" not in kind})


def ask_by_lane(client: Client) -> None:
    while client.infer("m", {"x": np.zeros(1, "f4")}).model_version != VERSION_BY_LANE:
        pass


def test_no_descriptor_of_a_client_that_is_dropped_is_left(host: EchoHost) -> None:
    with Client(host.endpoint, timeout=PATIENCE_S) as client:
        ask_by_lane(client)
        before = descriptors()
        for _ in range(CLIENTS):
            ask_by_lane(Client(host.endpoint, timeout=PATIENCE_S))
        assert descriptors() - before == Counter()
        ask_by_lane(client)


def test_what_a_fork_inherited_and_drops_is_still_its_parents(host: EchoHost) -> None:
    client = Client(host.endpoint, timeout=PATIENCE_S)
    ask_by_lane(client)
    pid = os.fork()
    if pid == 0:
        del client
        gc.collect()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    ask_by_lane(client)
    client.close()


def test_shared_memory_that_is_dropped_is_given_back() -> None:
    before = descriptors()
    region = Region(4096, writable=True)
    assert descriptors() - before != Counter()
    del region
    assert descriptors() - before == Counter()


def test_arrays_keep_the_memory_that_they_lie_in() -> None:
    region = Region(4096, writable=True)
    array = np.frombuffer(region.memory, np.uint8)
    region.close()
    region.close()
    assert region.fd == -1
    array[:] = 7
    assert array.sum() == 7 * 4096
