"""Who waits, who travels where, and who is blamed: the directory without a single socket."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from superbrain.domain.ctl import LaneAddress, Route
from superbrain.serve.directory import Directory, ModelRoute, PendingRequest, Slot
from superbrain.wire.errors import NotFound, ResourceExhausted, Unavailable
from superbrain.wire.messages import ModelMetadata

if TYPE_CHECKING:
    from superbrain.serve.peer import Envelope

NO_METADATA = ModelMetadata("m", ["1"], "superbrain", [], [])
NUMBERS = itertools.count(1)


def order(version: str = "1", *, queue_size: int = 8, reason: str = "") -> Route:
    return Route("m", version, 1, [], NO_METADATA, queue_size, 1000, reason)


def request(*, priority: int = 0, version: str = "", deadline_ns: int = 0) -> PendingRequest:
    return PendingRequest(
        next(NUMBERS),
        cast("Envelope", None),  # passed through, never looked at
        b"{}",
        [],
        priority=priority,
        version=version,
        deadline_ns=deadline_ns,
    )


def slot(window: int = 2) -> Slot:
    lane = Slot(LaneAddress("/lane", 1))
    lane.window = window
    return lane


def model(*slots: Slot, queue_size: int = 8) -> ModelRoute[Slot]:
    route: ModelRoute[Slot] = ModelRoute(order(queue_size=queue_size))
    route.slots.extend(slots)
    return route


def dispatch(route: ModelRoute[Slot]) -> list[tuple[Slot, PendingRequest]]:
    sent = []
    while (bound := route.next_dispatch()) is not None:
        sent.append(bound)
    return sent


def admitted(route: ModelRoute[Slot], count: int) -> list[PendingRequest]:
    requests = [request() for _ in range(count)]
    for one in requests:
        route.admit(one)
    return requests


def test_no_lane_gets_more_than_its_window() -> None:
    lane = slot(window=2)
    route = model(lane)
    admitted(route, 5)
    assert len(dispatch(route)) == 2
    assert len(route.waiting) == 3


def test_requests_spread_to_the_lane_with_the_least_outstanding() -> None:
    first, second = slot(), slot()
    route = model(first, second)
    admitted(route, 3)
    assert [bound[0] for bound in dispatch(route)] == [first, second, first]


def test_nothing_travels_before_the_greeting_or_on_a_retiring_lane() -> None:
    silent, retiring = slot(window=0), slot()
    retiring.retiring = True
    route = model(silent, retiring)
    admitted(route, 1)
    assert dispatch(route) == []
    assert not route.ready


def test_an_answer_frees_its_place() -> None:
    lane = slot(window=1)
    route = model(lane)
    first, second = admitted(route, 2)
    dispatch(route)
    assert route.take_answered(lane, first.number) is first
    assert route.take_answered(lane, first.number) is None
    assert dispatch(route) == [(lane, second)]


def test_more_than_may_wait_is_refused() -> None:
    route = model(queue_size=1)
    admitted(route, 1)
    with pytest.raises(ResourceExhausted):
        route.admit(request())


def test_a_goodbye_gives_requests_back_in_order_and_without_blame() -> None:
    lane, successor = slot(), slot(window=4)
    route = model(lane)
    requests = admitted(route, 4)
    dispatch(route)
    assert route.slot_ended(lane, died=False) == []
    route.slots.append(successor)
    assert [bound[1] for bound in dispatch(route)] == requests
    assert all(one.deaths == 0 for one in requests)


def test_a_suspect_travels_alone_and_the_others_wait_for_its_answer() -> None:
    lane, successor = slot(), slot()
    route = model(lane)
    first, second, third = admitted(route, 3)
    dispatch(route)
    route.slot_ended(lane, died=True)
    route.slots.append(successor)
    assert dispatch(route) == [(successor, first)]
    route.take_answered(successor, first.number)
    assert dispatch(route) == [(successor, second)]
    assert third.deaths == 0


def test_a_suspect_waits_until_a_lane_is_empty() -> None:
    busy = slot()
    route = model(busy)
    (innocent,) = admitted(route, 1)
    dispatch(route)
    suspect = request()
    suspect.deaths = 1
    route.admit(suspect)
    assert dispatch(route) == []
    route.take_answered(busy, innocent.number)
    assert dispatch(route) == [(busy, suspect)]


def test_the_second_death_blames_only_the_one_that_travelled() -> None:
    route = model(slot())
    first, second = admitted(route, 2)
    dispatch(route)
    route.slot_ended(route.slots[0], died=True)
    route.slots.append(slot())
    dispatch(route)
    assert route.slot_ended(route.slots[0], died=True) == [first]
    route.slots.append(slot())
    assert [bound[1] for bound in dispatch(route)] == [second]
    assert second.deaths == 1


def test_another_version_than_the_one_that_serves_is_not_found() -> None:
    with pytest.raises(NotFound, match="expected version '1'"):
        model(slot()).admit(request(version="2"))


def test_a_reason_refuses_those_that_come_and_those_that_wait() -> None:
    route = model()
    (waiting,) = admitted(route, 1)
    rejected = route.flip(order(reason="disk full"))
    assert [(one, type(error)) for one, error in rejected] == [(waiting, Unavailable)]
    with pytest.raises(Unavailable, match="disk full"):
        route.admit(request())


def test_a_flip_keeps_those_that_wait_unless_they_insist_on_the_old_version() -> None:
    route = model()
    plain, pinned = request(), request(version="1")
    route.admit(plain)
    route.admit(pinned)
    assert [one for one, _ in route.flip(order("2"))] == [pinned]
    assert route.version == "2"
    assert route.waiting.clear() == [plain]


def test_an_unknown_model_is_refused_with_the_names_that_are_known() -> None:
    directory: Directory[Slot] = Directory()
    directory.enter(order())
    with pytest.raises(NotFound, match=r"those served \('m'\), found 'x'"):
        directory.find("x")


def test_a_removed_model_is_unknown() -> None:
    directory: Directory[Slot] = Directory()
    directory.enter(order())
    directory.remove("m")
    with pytest.raises(NotFound, match="none"):
        directory.find("m")


def test_a_lane_that_ended_before_it_joined_takes_no_request() -> None:
    lane = slot()
    route = model()
    route.slot_ended(lane, died=True)
    assert not lane.ready


def test_only_what_a_dead_worker_was_executing_is_blamed() -> None:
    lane = slot(window=3)
    route = model(lane)
    guilty, innocent, other = admitted(route, 3)
    dispatch(route)
    assert not route.slot_ended(lane, died=True, executing={guilty.number})
    assert [one.deaths for one in (guilty, innocent, other)] == [1, 0, 0]
    assert len(route.waiting) == 3


def test_whoever_finds_the_queue_full_in_an_outage_is_told_of_it() -> None:
    route = model(queue_size=1)
    route.flip(msgspec.structs.replace(order(queue_size=1), waiting="m 1 makes room for m 2"))
    admitted(route, 1)
    with pytest.raises(ResourceExhausted, match=r"at most 1 .*; m 1 makes room for m 2"):
        route.admit(request())
    route.flip(order(queue_size=1))
    with pytest.raises(ResourceExhausted) as caught:
        route.admit(request())
    assert "makes room" not in caught.value.message
