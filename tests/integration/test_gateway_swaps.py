"""One worker in another's place: nothing is lost, doubled or answered by an older version."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest

from superbrain.domain import ctl
from tests.support.fake_worker import DIE, SLOW
from tests.support.processes import (
    PATIENCE_S,
    Answer,
    Client,
    OrderFailed,
    Stage,
    WorkerChild,
    until,
)

pytestmark = pytest.mark.integration


class Caller(threading.Thread):
    """Asks one after another, or several at a time, and remembers what came for what."""

    def __init__(self, stage: Stage, outstanding: int) -> None:
        super().__init__(daemon=True)
        self._client = stage.client()
        self._outstanding = outstanding
        self.stop = threading.Event()
        self.sent = 0
        self.ids: list[str] = []
        self.codes: list[str] = []
        self.versions: list[int] = []

    def run(self) -> None:
        with self._client:
            while not self.stop.is_set():
                for _ in range(self._outstanding):
                    self._client.send("adder", [float(self.sent)], id=str(self.sent))
                    self.sent += 1
                for _ in range(self._outstanding):
                    self._take()

    def _take(self) -> None:
        answer = self._client.receive()
        self.ids.append(answer.id)
        self.codes.append(answer.code)
        if answer.code == "OK":
            assert answer.outputs["y"].tolist() == [float(answer.id) + 1]
            assert answer.outputs["version"].tolist() == [int(answer.model_version)]
            self.versions.append(int(answer.model_version))


def test_swaps_under_load_lose_nothing_double_nothing_and_never_go_back(stage: Stage) -> None:
    serving = stage.serving("version=1")
    callers = [Caller(stage, outstanding) for outstanding in (1, 1, 3, 8)]
    for caller in callers:
        caller.start()
    for version in range(2, 9):
        successor = stage.worker(f"version={version}")
        successor.bring_up()
        time.sleep(0.1)
        serving.stand_by()
        stage.gateway.route("adder", str(version), [successor])
        serving.close()
        serving = successor
    time.sleep(0.1)
    end(callers)


def end(callers: list[Caller]) -> None:
    """Each has seen every version, in order, and an answer to each request."""
    for caller in callers:
        caller.stop.set()
    for caller in callers:
        caller.join(PATIENCE_S)
        assert not caller.is_alive()
        assert caller.sent == len(caller.ids) == len(set(caller.ids))
        assert set(caller.codes) == {"OK"}
        assert caller.versions == sorted(caller.versions)
        assert set(caller.versions) == set(range(1, 9))


def swapped_with_four_under_way(stage: Stage, old: WorkerChild) -> list[Answer]:
    """What is answered to four requests that have come to the old worker, or wait for it."""
    new = stage.worker("version=2").bring_up()
    with stage.client() as client:
        for number in range(4):
            client.send("adder", [SLOW], id=str(number))
        until(old.at_work, "the old worker at work")
        old.stand_by()
        stage.gateway.route("adder", "2", [new])
        return [client.receive() for _ in range(4)]


def test_what_merely_waited_at_the_old_worker_is_executed_by_the_new_one(stage: Stage) -> None:
    old = stage.serving("version=1,slow_ms=300,execution_ms=300")
    answers = swapped_with_four_under_way(stage, old)
    assert [(answer.id, answer.model_version) for answer in answers] == [
        ("0", "1"),
        ("1", "2"),
        ("2", "2"),
        ("3", "2"),
    ]
    assert old.figures().requests == 1


def test_what_waited_for_a_short_time_only_is_executed_by_the_old_one(stage: Stage) -> None:
    old = stage.serving("version=1,slow_ms=30")
    answers = swapped_with_four_under_way(stage, old)
    assert [answer.id for answer in answers] == ["0", "1", "2", "3"]
    versions = [answer.model_version for answer in answers]
    assert versions == sorted(versions)
    assert versions[:2] == ["1", "1"]
    assert stage.gateway.figures().models[0].redispatched == 0


def test_who_dies_of_a_request_while_it_finishes_has_not_died_for_nothing(stage: Stage) -> None:
    """The second worker that it ends is the last one."""
    old = stage.serving("version=1,slow_ms=50")
    new = stage.worker("version=2").bring_up()
    with stage.client() as client:
        client.send("adder", [SLOW], id="slow")
        client.send("adder", [DIE], id="deadly")
        until(old.at_work, "the old worker at work")
        old.say(ctl.StandBy())
        old.process.wait(PATIENCE_S)
        assert client.receive().model_version == "1"
        stage.gateway.route("adder", "2", [new])
        answer = client.receive()
        assert (answer.id, answer.code) == ("deadly", "INTERNAL")
        new.process.wait(PATIENCE_S)


# --- a switch that was prepared -------------------------------------------------------------------


def answered_by(stage: Stage, client: Client, worker: WorkerChild) -> str:
    """The version that answers a request which waits until there is an order for `worker`."""
    client.send("adder", [1])
    until(lambda: stage.gateway.figures().models[0].waiting == 1, "a request that waits")
    stage.gateway.route("adder", "of an order", [worker])
    return client.receive().model_version


def test_a_prepared_switch_needs_no_order_any_more(stage: Stage) -> None:
    old = stage.serving("version=1")
    new = stage.worker("version=2").bring_up()
    stage.gateway.prepare("adder", "2", [new])
    with stage.client() as client:
        assert client.ask("adder", [1]).model_version == "1"
        old.stand_by()
        assert client.ask("adder", [1]).model_version == "2"
        stage.gateway.route("adder", "2", [new])  # as it is already
        assert client.ask("adder", [1]).model_version == "2"
    assert new.figures().requests == 2


def test_a_prepared_switch_waits_for_every_lane(stage: Stage) -> None:
    one, other = stage.worker("version=1"), stage.worker("version=1,slow_ms=100")
    other.load = msgspec.structs.replace(other.load, deployment_id=one.load.deployment_id)
    one.bring_up()
    other.bring_up()
    stage.gateway.route("adder", "1", [one, other])
    new = stage.worker("version=2").bring_up()
    stage.gateway.prepare("adder", "2", [new])
    one.stand_by()
    with stage.client() as client:
        client.send("adder", [SLOW])
        assert (
            client.ask("adder", [1]).model_version == "1"
        )  # of who is busy, for there is no other
        assert client.receive().model_version == "1"
        other.stand_by()
        assert client.ask("adder", [1]).model_version == "2"


def test_a_worker_that_dies_does_not_bring_a_prepared_switch_about(stage: Stage) -> None:
    """Whether it has stopped for its other lanes too, only the daemon can know."""
    old = stage.serving("version=1")
    new = stage.worker("version=2").bring_up()
    stage.gateway.prepare("adder", "2", [new])
    with stage.client() as client:
        assert client.ask("adder", [1]).model_version == "1"
        old.kill()
        assert answered_by(stage, client, new) == "2"


def test_a_model_that_nobody_answers_for_is_not_taken_over_without_an_order(stage: Stage) -> None:
    stage.gateway.route("adder", "1", [])
    new = stage.worker("version=2").bring_up()
    stage.gateway.prepare("adder", "2", [new])
    with stage.client() as client:
        assert answered_by(stage, client, new) == "2"


def test_what_was_prepared_is_given_up_for_something_else(stage: Stage) -> None:
    old = stage.serving("version=1")
    prepared, other = (stage.worker(f"version={n}").bring_up() for n in (2, 3))
    stage.gateway.prepare("adder", "2", [prepared])
    stage.gateway.prepare("adder", "3", [other])
    old.stand_by()
    with stage.client() as client:
        assert client.ask("adder", [1]).model_version == "3"
        stage.gateway.prepare("adder", "2", [prepared])
        stage.gateway.route("adder", "1", [])
        other.stand_by()
        old.serve()
        stage.gateway.route("adder", "1", [old])
        assert client.ask("adder", [1]).model_version == "1"


def test_what_was_prepared_for_a_model_that_is_forgotten_is_forgotten(stage: Stage) -> None:
    old = stage.serving("version=1")
    new = stage.worker("version=2").bring_up()
    stage.gateway.prepare("adder", "2", [new])
    stage.gateway.order(ctl.Unroute("adder"), ctl.Done)
    old.stand_by()
    with stage.client() as client:
        assert client.ask("adder", [1]).code == "NOT_FOUND"
        stage.gateway.route("adder", "2", [new])
        assert client.ask("adder", [1]).model_version == "2"


def test_a_prepared_worker_that_dies_costs_no_request(stage: Stage) -> None:
    old = stage.serving("version=1")
    new, newer = (stage.worker(f"version={n}").bring_up() for n in (2, 3))
    stage.gateway.prepare("adder", "2", [new])
    new.kill()
    with stage.client() as client:
        assert client.ask("adder", [1]).model_version == "1"
        old.stand_by()
        assert answered_by(stage, client, newer) == "3"


def test_nobody_is_there_to_be_prepared_for_says_so(stage: Stage) -> None:
    old = stage.serving("version=1")
    nobody = stage.worker("version=2")  # which does not listen
    with pytest.raises(OrderFailed, match="lane"):
        stage.gateway.prepare("adder", "2", [nobody])
    with stage.client() as client:
        assert client.ask("adder", [1]).model_version == "1"
        old.stand_by()
        nobody.bring_up()
        stage.gateway.route("adder", "2", [nobody])
        assert client.ask("adder", [1]).model_version == "2"


def test_prepared_swaps_under_load_lose_nothing_double_nothing_and_never_go_back(
    stage: Stage,
) -> None:
    serving = stage.serving("version=1")
    callers = [Caller(stage, outstanding) for outstanding in (1, 1, 3, 8)]
    for caller in callers:
        caller.start()
    for version in range(2, 9):
        successor = stage.worker(f"version={version}").bring_up()
        stage.gateway.prepare("adder", str(version), [successor])
        serving.stand_by()
        stage.gateway.route("adder", str(version), [successor])
        serving.close()
        serving = successor
    end(callers)


def test_a_worker_that_stood_by_serves_again(stage: Stage) -> None:
    old = stage.serving("version=1")
    new = stage.worker("version=2").bring_up()
    old.stand_by()
    stage.gateway.route("adder", "2", [new])
    with stage.client() as client:
        assert client.ask("adder", [1]).model_version == "2"
        new.stand_by()
        old.serve()
        stage.gateway.route("adder", "1", [old])
        assert client.ask("adder", [1]).model_version == "1"


def test_a_switch_waits_for_the_answers_of_a_lane_that_still_works(stage: Stage) -> None:
    old = stage.serving("version=1,slow_ms=300")
    new = stage.worker("version=2").bring_up()
    with stage.client() as client:
        client.send("adder", [SLOW], id="old")
        until(old.at_work, "the old worker at work")
        stage.gateway.route("adder", "2", [new])
        client.send("adder", [1], id="new")
        answers = [client.receive() for _ in range(2)]
    assert [(a.id, a.model_version) for a in answers] == [("old", "1"), ("new", "2")]
