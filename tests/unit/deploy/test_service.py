"""A model's budget and its periodic re-proof, with workers that only say what they are told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from superbrain.deploy.child import ChildError
from superbrain.deploy.crew import Crew, Worker
from superbrain.deploy.gateway import GatewayKeeper
from superbrain.deploy.service import ModelService
from superbrain.deploy.services import Services
from superbrain.deploy.watch import CrewWatch
from superbrain.domain import ctl
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.health import Incident
from superbrain.domain.proof import CaseTime, OutputFigures, Proof
from superbrain.domain.watch import Reproof, Rules, Slower, Watch

SLOW = Slower(3.1, 12.0, 37.2, "proven")
GOOD = Proof("cpu", [OutputFigures("one", "y", "", True, "exact")], [CaseTime("one", 1.0)])
BAD = Proof("cpu", [OutputFigures("one", "y", "", False, "exact", "found 2")], [])


class Surroundings:
    """Writes down what it is told."""

    def __init__(self, blame: str = "") -> None:
        self.reproofs = asyncio.Semaphore(1)
        self.told: list[life.Bad] = []
        self.incidents: list[Incident] = []
        self._blame = blame

    def given_up(self, name: str, why: life.Bad) -> bool:
        assert name == "ocr"
        self.told.append(why)
        return True

    def happened(self, name: str, incident: Incident) -> None:
        assert name == "ocr"
        self.incidents.append(incident)

    def to_blame(self, name: str) -> str:
        assert name == "ocr"
        return self._blame


class SlowWatch(CrewWatch):
    """Finds every crew slow."""

    slower = SLOW


def service(surroundings: Surroundings, rules: Rules, state: State = State.LIVE) -> ModelService:
    made = ModelService("ocr", cast("GatewayKeeper", None), rules, surroundings)
    made.deployment = Deployment(
        id=1, name="ocr", version="1", sequence=1, digest="ab", ladder=("cpu",), state=state
    )
    return made


@pytest.mark.parametrize(
    ("state", "blame", "counts", "spent"),
    [
        (State.PROBATION, "", True, True),
        (State.PROBATION, "the host is busy", True, False),
        (State.PROBATION, "", False, False),
        (State.LIVE, "", True, False),
    ],
)
def test_a_drift_spends_the_budget_in_probation_unless_the_host_is_to_blame(
    state: State, blame: str, counts: bool, spent: bool
) -> None:
    async def scene() -> None:
        surroundings = Surroundings(blame)
        rules = Rules(watch=Watch(drift_spends_budget=counts))
        slow = service(surroundings, rules, state)
        slow.watch = SlowWatch(rules.watch)
        slow.current = Crew(cast("Any", None), [])
        for _ in range(3):
            await slow.check()
        reasons = [why.reason.message for why in surroundings.told]
        assert reasons == (["it has become " + SLOW.sentence] if spent else [])
        assert [one.kind for one in surroundings.incidents] == ["BecameSlow"], "said once"
        assert blame in surroundings.incidents[0].message

    asyncio.run(scene())


def test_a_budget_that_is_spent_is_told_once_and_once_more_when_it_is_judged_anew() -> None:
    async def scene() -> None:
        surroundings = Surroundings()
        rules = Rules(watch=Watch(drift_spends_budget=True))
        slow = service(surroundings, rules, State.PROBATION)
        slow.watch = SlowWatch(rules.watch)
        slow.current = Crew(cast("Any", None), [])
        for told in (1, 1, 2):
            if told == 2:
                slow.judge_anew()
            await slow.check()
            assert len(surroundings.told) == told

    asyncio.run(scene())


class Child:
    """Answers orders with what it was given, in turn."""

    name = "worker 1"
    pid = 0
    alive = True
    concerns: ClassVar[dict[str, Any]] = {"deployment": 1}

    def __init__(self, replies: Sequence[Proof | ChildError | None]) -> None:
        self._replies = list(replies)
        self.orders: list[ctl.Reprove] = []

    async def order(self, order: ctl.Reprove, *_: object) -> ctl.Reproven:
        self.orders.append(order)
        reply = self._replies.pop(0)
        if isinstance(reply, ChildError):
            raise reply
        return ctl.Reproven(reply)


class Bringup:
    """Stands for a manifest's request timeout."""

    manifest: Any = type("M", (), {"serving": type("S", (), {"request_timeout_ms": 1000})})


class Distrusting(ModelService):
    """Writes down whom it distrusts or ends."""

    distrusted: Reason | None = None
    hung = ""

    def distrust(self, worker: Worker, reason: Reason) -> None:
        assert worker.worker_id == 1
        self.distrusted = reason

    def end_hung(self, worker: Worker, what: str) -> None:
        assert worker.worker_id == 1
        self.hung = what


class Outcome:
    """What came of one look after another."""

    def __init__(
        self, *replies: Proof | ChildError | None, looks: int = 1, postpone_s: float = 3600
    ) -> None:
        self.surroundings: Surroundings
        self.child = Child(replies)
        asyncio.run(self._scene(looks, Rules(reproof=Reproof(1e-9, postpone_s))))

    async def _scene(self, looks: int, rules: Rules) -> None:
        self.surroundings = Surroundings()
        self.model = Distrusting("ocr", cast("GatewayKeeper", None), rules, self.surroundings)
        crew = Crew(
            cast("Any", Bringup),
            [Worker(cast("Any", self.child), 1, "lane", cast("Any", None), set())],
        )
        self.model.watch.of(crew.workers[0], time.monotonic() - 1)
        for _ in range(looks):
            self.model.reproofs.look(crew, self.model.watch, in_probation=False)
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    @property
    def kinds(self) -> list[str]:
        return [incident.kind for incident in self.surroundings.incidents]


def test_a_case_that_agrees_is_written_down_and_the_next_one_follows() -> None:
    outcome = Outcome(GOOD, GOOD, looks=2)
    assert [order.case for order in outcome.child.orders] == [0, 1]
    assert outcome.model.reproofs.passed_at is not None
    assert (outcome.kinds, outcome.model.distrusted) == ([], None)


def test_a_busy_worker_is_asked_again_and_in_the_end_it_insists() -> None:
    outcome = Outcome(None, None, GOOD, looks=3)
    assert [(order.case, order.insist) for order in outcome.child.orders] == [(0, False)] * 3
    outcome = Outcome(GOOD, postpone_s=0)
    assert outcome.child.orders[0].insist


def test_a_case_that_fails_once_is_told_and_changes_nothing() -> None:
    outcome = Outcome(BAD, GOOD)
    assert [order.insist for order in outcome.child.orders] == [False, True]
    assert (outcome.kinds, outcome.model.distrusted) == (["ReproofMismatch"], None)


def test_a_case_that_fails_twice_costs_the_trust_with_figures() -> None:
    outcome = Outcome(BAD, BAD)
    assert outcome.model.distrusted is not None
    assert outcome.model.distrusted.code == "REPROOF_FAILED"
    assert "case 'one', output 'y': found 2" in outcome.model.distrusted.message


def test_a_case_that_never_ends_is_a_hang() -> None:
    outcome = Outcome(ChildError("TIMED_OUT", "did not finish Reprove within 3 s"))
    assert "did not finish" in outcome.model.hung


def test_a_worker_that_dies_meanwhile_is_the_keepers_business() -> None:
    outcome = Outcome(ChildError("DIED", "gone"))
    assert (outcome.kinds, outcome.model.distrusted, outcome.model.hung) == ([], None, "")


def test_a_case_that_cannot_be_read_says_nothing_about_the_model_and_is_told_once() -> None:
    unreadable = ChildError("StoreError", "golden/one/x.npy is not there")
    outcome = Outcome(unreadable, unreadable, looks=2)
    assert (outcome.kinds, outcome.model.distrusted) == (["ReproofUnreadable"], None)


class Reach:
    """A gateway that says whom it reaches; None: it does not know."""

    workers: list[int] | None = None

    def reached(self, model: str) -> list[int] | None:
        assert model == "ocr"
        return self.workers


@pytest.mark.parametrize(
    ("looks", "out"),
    [
        ([(0, []), (5, []), (10, [])], True),
        ([(0, []), (60, [])], False),  # the first may have been told before the worker was there
        ([(0, []), (5, []), (9, [])], False),
        ([(0, []), (5, [7]), (10, []), (15, [])], False),
        ([(0, []), (5, None), (10, []), (15, [])], False),
        ([(0, []), (5, []), (10, [7])], False),
        ([(0, [7]), (5, [7]), (10, [7]), (60, [7])], False),
        ([(0, [8]), (5, [8]), (10, [8])], True),
    ],
)
def test_a_worker_that_the_gateway_does_not_reach_for_long_is_out_of_reach(
    looks: Sequence[tuple[float, list[int] | None]], *, out: bool
) -> None:
    gateway = Reach()
    made = ModelService("ocr", cast("GatewayKeeper", gateway), Rules(), Surroundings())
    found = False
    for now, workers in looks:
        gateway.workers = workers
        found = made._out_of_reach(cast("Worker", SimpleNamespace(worker_id=7)), now)
    assert found is out


def test_a_model_that_cannot_be_checked_keeps_no_other_from_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    checked: list[str] = []

    class Odd(ModelService):
        async def check(self) -> None:
            if self.name == "bad":
                raise ValueError("odd figures")
            checked.append(self.name)

    async def scene() -> None:
        services = Services(cast("GatewayKeeper", None), Rules())
        for name in ("bad", "good"):
            services._services[name] = Odd(name, cast("GatewayKeeper", None), Rules(), services)
        await services.check()

    asyncio.run(scene())
    assert checked == ["good"]
    assert [one.getMessage() for one in caplog.records] == ["odd figures"]
