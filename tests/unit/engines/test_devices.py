"""What every device does, by each way to the GPU that there is, and by the host's own.

Engines take a `Device` for what it promises; so does the stand-in that tests them on the host.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from superbrain.engines.device_memory import DEFAULT, OPT_IN, Device, DeviceError
from superbrain.engines.port import Array
from tests.support.devices import BACKENDS, HOST, opened
from tests.support.host_device import HostDevice

FAR_TOO_MUCH = 1 << 46
MIB = 1 << 20
SPARE_BYTES = 8 * MIB  # what a driver may keep for itself


@pytest.fixture(params=BACKENDS)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with opened(request.param) as found:
        yield found


@pytest.fixture
def graphs(device: Device) -> Device:
    if not device.supports_graphs:
        pytest.skip("it cannot capture graphs, and says so in a test of its own")
    return device


def pinned_with(device: Device, values: Array) -> Array:
    memory = device.pinned(values.nbytes)
    memory[...] = values.view(np.uint8)
    return memory


def numbers(size: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


def free_bytes() -> int:
    """How much memory of the GPU is free, asked of the driver."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    status, free, _total = runtime.cudaMemGetInfo()
    assert status == 0
    return int(free)


def test_what_is_uploaded_comes_back(device: Device) -> None:
    sent = pinned_with(device, numbers(4 * MIB))
    back, address = device.pinned(4 * MIB), device.allocate(4 * MIB)
    device.upload(address, sent)
    device.download(back, address)
    device.synchronize()
    assert np.array_equal(sent, back)


def test_addresses_are_plain_numbers_that_kernels_can_take(device: Device) -> None:
    addresses = [device.allocate(size) for size in (1, 3, 1000, 0)]
    assert all(type(one) is int and one % 256 == 0 for one in addresses)
    assert len(set(addresses)) == len(addresses)
    assert type(device.stream) is int
    assert device.stream > 2  # 0 to 2 are CUDA's own streams


def test_a_part_of_memory_is_copied_and_the_rest_stays(device: Device) -> None:
    first, part, back = (pinned_with(device, numbers(1000, seed)) for seed in range(3))
    address = device.allocate(1000)
    device.upload(address, first)
    device.upload(address, part[:10])
    device.download(back[:990], address)
    device.synchronize()
    assert np.array_equal(back[:10], part[:10])
    assert np.array_equal(back[10:990], first[10:990])
    assert np.array_equal(back[990:], numbers(1000, 2)[990:])


def test_everything_on_the_stream_is_done_in_order(device: Device) -> None:
    address, sent = device.allocate(MIB), [pinned_with(device, numbers(MIB, s)) for s in range(20)]
    back = [device.pinned(MIB) for _ in sent]
    for one, other in zip(sent, back, strict=True):
        device.upload(address, one)
        device.download(other, address)
    device.synchronize()
    assert all(map(np.array_equal, sent, back))


def test_nothing_is_copied_for_no_bytes(device: Device) -> None:
    memory, address = device.pinned(0), device.allocate(0)
    device.upload(address, memory[:0])
    device.download(memory[:0], address)
    device.synchronize()


def test_memory_that_is_not_page_locked_can_be_downloaded_into(device: Device) -> None:
    sent, address = pinned_with(device, numbers(MIB)), device.allocate(MIB)
    back = np.empty(MIB, np.uint8)
    device.upload(address, sent)
    device.download(back, address)
    device.synchronize()
    assert np.array_equal(sent, back)


def test_what_cannot_be_granted_is_refused_and_the_device_works_on(device: Device) -> None:
    with pytest.raises(DeviceError, match="out of memory"):
        device.allocate(FAR_TOO_MUCH)
    test_what_is_uploaded_comes_back(device)


def test_memory_that_was_given_back_can_be_had_again(device: Device) -> None:
    for _ in range(3):
        address = device.allocate(4 * MIB)
        device.free(address)
    test_what_is_uploaded_comes_back(device)


def test_two_devices_after_one_another(device: Device, request: pytest.FixtureRequest) -> None:
    test_what_is_uploaded_comes_back(device)
    for _ in range(3):
        with opened(request.node.callspec.params["device"]) as other:
            test_what_is_uploaded_comes_back(other)
    test_what_is_uploaded_comes_back(device)


def test_a_device_by_each_backend_after_one_another() -> None:
    for backend in (DEFAULT, OPT_IN, DEFAULT, OPT_IN):
        with opened(backend) as device:
            test_what_is_uploaded_comes_back(device)


@pytest.mark.parametrize("backend", [DEFAULT, OPT_IN])
def test_closing_gives_all_memory_back(backend: str) -> None:
    with opened(DEFAULT):  # so that the driver holds what it holds anyway
        before = free_bytes()
        with opened(backend) as device:
            for _ in range(4):
                device.allocate(64 * MIB)
                device.pinned(MIB)
            assert free_bytes() <= before - 4 * 64 * MIB
        gc.collect()
        assert free_bytes() >= before - SPARE_BYTES


def test_closing_the_hosts_gives_all_memory_back() -> None:
    device = HostDevice()
    device.allocate(1000)
    assert device.held_bytes == 1000
    device.close()
    assert device.held_bytes == 0


# --- graphs ---------------------------------------------------------------------------------------


def test_what_is_captured_is_done_when_it_is_launched_and_not_before(graphs: Device) -> None:
    sent, back = pinned_with(graphs, numbers(MIB)), pinned_with(graphs, np.zeros(MIB, np.uint8))
    address = graphs.allocate(MIB)
    graphs.begin_capture()
    graphs.upload(address, sent)
    graphs.download(back, address)
    graph = graphs.end_capture()
    graphs.synchronize()
    assert not back.any()
    for seed in (5, 6):
        sent[...] = numbers(MIB, seed)
        graphs.launch(graph)
        graphs.synchronize()
        assert np.array_equal(sent, back)


def test_a_capture_that_is_broken_says_so_and_the_stream_works_on(graphs: Device) -> None:
    graphs.begin_capture()
    with pytest.raises(DeviceError):
        graphs.synchronize()
    with pytest.raises(DeviceError):
        graphs.end_capture()
    test_what_is_uploaded_comes_back(graphs)


def test_a_graph_of_nothing_can_be_launched(graphs: Device) -> None:
    graphs.begin_capture()
    graph = graphs.end_capture()
    graphs.launch(graph)
    graphs.synchronize()


def test_pycuda_refuses_graphs_in_a_sentence() -> None:
    with opened(OPT_IN) as device:
        assert not device.supports_graphs
        calls: list[tuple[Any, ...]] = [
            (device.begin_capture,),
            (device.end_capture,),
            (device.launch, None),
        ]
        for call, *arguments in calls:
            with pytest.raises(DeviceError, match="captures graphs, found pycuda, which cannot"):
                call(*arguments)


# --- what only the host's can be asked ------------------------------------------------------------


@pytest.fixture
def host() -> Iterator[HostDevice]:
    with opened(HOST) as found:
        assert isinstance(found, HostDevice)
        yield found


def test_the_hosts_does_nothing_before_it_is_waited_for(host: HostDevice) -> None:
    sent, back = pinned_with(host, numbers(10)), pinned_with(host, numbers(10, 9))
    address = host.allocate(10)
    host.upload(address, sent)
    host.download(back, address)
    assert np.array_equal(back, numbers(10, 9))
    sent[...] = 7  # too soon: it is this that is copied
    host.synchronize()
    assert (back == 7).all()


def test_the_hosts_knows_memory_that_was_freed(host: HostDevice) -> None:
    address, back = host.allocate(10), host.pinned(10)
    host.begin_capture()
    host.download(back, address)
    graph = host.end_capture()
    host.free(address)
    host.launch(graph)
    with pytest.raises(DeviceError, match="an illegal memory access of 10 bytes"):
        host.synchronize()
    with pytest.raises(DeviceError, match="expected the address of an allocation"):
        host.free(address)


@pytest.mark.parametrize(
    "breaks",
    [
        lambda host: host.allocate(1),
        lambda host: host.synchronize(),
        lambda host: host.launch([]),
        lambda host: host.download(np.empty(3, np.uint8), 256),
    ],
    ids=["allocate", "synchronize", "launch", "pageable memory"],
)
def test_the_hosts_knows_what_a_capture_does_not_permit(host: HostDevice, breaks: Any) -> None:  # noqa: ANN401
    host.begin_capture()
    with pytest.raises(DeviceError, match="not permitted while the stream is captured"):
        breaks(host)
    with pytest.raises(DeviceError, match="the capture was invalidated"):
        host.end_capture()
    with pytest.raises(DeviceError, match="expected a stream that is captured"):
        host.end_capture()


def test_a_stream_is_captured_once_at_a_time(host: HostDevice) -> None:
    host.begin_capture()
    with pytest.raises(DeviceError, match="expected a stream that is not captured"):
        host.begin_capture()
    host.end_capture()


def test_a_host_with_a_driver_has_its_gpu_tested_too() -> None:
    if BACKENDS == (HOST,):
        pytest.skip(f"no NVIDIA driver here: nothing is tested by {DEFAULT} and {OPT_IN}")
    assert {DEFAULT, OPT_IN, HOST} == set(BACKENDS)
