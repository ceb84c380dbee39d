"""A deployment's life: one table, and a small interpreter that never performs an effect.

A deployment is one attempt to bring one bundle live. `advance(deployment, event)` gives the next
deployment and what has to be done now; the driver writes the deployment down *before* it does it,
so that after a kill at any instant `resume` continues from what was written.

`TABLE` has a row for every state, also for those that end a life. Some events may lead to a
different state than the table's first answer: a rung that fails is followed by the next rung
(`BUILDING` again) as long as there is one, and so is a rung that was timed, where the fastest is
to serve. ladder.py says which rung is next. docs/architecture.md shows the diagram that
scripts/docs draws from this table.

>>> first = Deployment(id=1, name="ocr", version="1.0.0", sequence=1, digest="ab", ladder=("a",))
>>> advance(first, Settled())[0].state
<State.VERIFYING: 'VERIFYING'>
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from superbrain.domain.ladder import next_rung, noted
from superbrain.domain.manifest import Select
from superbrain.wire.errors import SuperbrainError


class State(enum.StrEnum):
    """Where a deployment stands."""

    RECEIVED = "RECEIVED"
    VERIFYING = "VERIFYING"
    BUILDING = "BUILDING"
    PROVING = "PROVING"
    SWITCHING = "SWITCHING"
    PROBATION = "PROBATION"
    LIVE = "LIVE"
    DRAINING = "DRAINING"
    ROLLING_BACK = "ROLLING_BACK"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    ABANDONED = "ABANDONED"
    RETIRED = "RETIRED"
    ROLLED_BACK = "ROLLED_BACK"
    BROKEN = "BROKEN"


class Reason(msgspec.Struct, frozen=True):
    """Why something ended badly: a stable code, a sentence, and what to do about it."""

    code: str
    message: str
    mend: str = ""


class RungOutcome(msgspec.Struct, frozen=True):
    """What became of one rung: it proved, unless there is a `reason` against it.

    `milliseconds`: the median time of a golden request on this host, None where it was not timed.
    """

    rung: str
    reason: Reason | None = None
    milliseconds: float | None = None


class Deployment(msgspec.Struct, frozen=True):
    """One attempt to bring one bundle live.

    `predecessor` is the deployment that served before this one (0 for none): the one a rollback
    returns to. `origin` says why it exists, `attempt` counts the tries with the same bundle, and
    `source` is the dropped file, empty when the bundle is in the store already. `outcomes` has what
    became of every rung that was tried, in the order of the tries, `carried` what became of the
    engines that the bundle brought along for a rung: those with a reason are not tried again.
    """

    id: int
    name: str
    version: str
    sequence: int
    digest: str
    ladder: tuple[str, ...]
    state: State = State.RECEIVED
    rung_index: int = 0
    attempt: int = 1
    origin: Literal["inbox", "retry"] = "inbox"
    predecessor: int = 0
    source: str = ""
    reason: Reason | None = None
    select: Select = "first"
    outcomes: tuple[RungOutcome, ...] = ()
    carried: tuple[RungOutcome, ...] = ()

    @property
    def rung(self) -> str:
        """The rung it is on."""
        return self.ladder[self.rung_index]

    @property
    def may_use_carried(self) -> bool:
        """Whether nothing speaks against engines that the bundle may bring along for its rung."""
        return not any(one.rung == self.rung and one.reason for one in self.carried)

    @property
    def is_compared(self) -> bool:
        """Whether its rung is still to be timed, to be compared with the others of its ladder."""
        timed = any(one.rung == self.rung and one.milliseconds is not None for one in self.outcomes)
        return self.select == "fastest" and len(self.ladder) > 1 and not timed


# --- events -----------------------------------------------------------------------------------


class Event(msgspec.Struct, frozen=True):
    """Base of all that can happen to a deployment."""


class Bad(Event, frozen=True):
    """Base of what goes wrong, and why."""

    reason: Reason


class Settled(Event, frozen=True):
    """The dropped file is complete by its signed sizes."""


class Trusted(Event, frozen=True):
    """Every byte is in the store and matches what was signed."""


class Refused(Bad, frozen=True):
    """The bundle is not what was signed, or may not be installed here."""


class Built(Event, frozen=True):
    """Engines and pipeline are loaded in the processes that will serve.

    `carried`: whether the engines are those that the bundle brought along.
    """

    carried: bool = False


class CarriedFailed(Bad, frozen=True):
    """An engine that the bundle brought along does not fit, load or prove; one is built here."""


class StageFailed(Bad, frozen=True):
    """This host could not do it on this rung."""


class Matched(Event, frozen=True):
    """Every golden output was reproduced, and this rung is to serve."""


class Timed(Event, frozen=True):
    """Every golden output was reproduced, in so many milliseconds for a request."""

    milliseconds: float


class Mismatched(Bad, frozen=True):
    """At least one golden output was not reproduced."""


class Switched(Event, frozen=True):
    """Traffic goes to this deployment."""


class Stable(Event, frozen=True):
    """It has served long enough to be trusted."""


class BudgetSpent(Bad, frozen=True):
    """It crashed or failed more often than its budget allows."""


class ReproofFailed(Bad, frozen=True):
    """It no longer reproduces a golden case, not even in a fresh process."""


class RollbackAsked(Bad, frozen=True):
    """An operator wants the previous version back."""


class RetireAsked(Bad, frozen=True):
    """An operator wants the model to stop."""


class Superseded(Event, frozen=True):
    """A newer deployment of the same model is live and stable."""


class Drained(Event, frozen=True):
    """Its processes have ended."""


class PreviousReady(Event, frozen=True):
    """The previous version serves again."""


class PreviousLost(Bad, frozen=True):
    """The previous version cannot come back, and this one still serves."""


class Restored(Event, frozen=True):
    """A rollback brought this one back into service."""


class Abandoned(Bad, frozen=True):
    """A newer bundle arrived, or the dropped file went away."""


# --- commands ---------------------------------------------------------------------------------


class Command(msgspec.Struct, frozen=True):
    """Base of what the driver is told to do."""


class AwaitFile(Command, frozen=True):
    """Wait until the dropped file is complete."""


class TakeIn(Command, frozen=True):
    """Copy the dropped file into the store, hashing every byte."""


class Build(Command, frozen=True):
    """Load engines and pipeline on the deployment's rung."""


class Prove(Command, frozen=True):
    """Run every golden case in the processes just loaded."""


class Switch(Command, frozen=True):
    """Make it current in the journal, then move the traffic."""


class Watch(Command, frozen=True):
    """Count faults until probation is over."""


class RollBack(Command, frozen=True):
    """Bring the predecessor back into service."""


class Drain(Command, frozen=True):
    """End its processes once they have answered what they execute."""


class Discard(Command, frozen=True):
    """End the processes of a candidate that will not serve."""


# --- the table --------------------------------------------------------------------------------

TABLE: dict[State, dict[type[Event], State]] = {
    State.RECEIVED: {Settled: State.VERIFYING, Abandoned: State.ABANDONED, Refused: State.REJECTED},
    State.VERIFYING: {
        Trusted: State.BUILDING,
        Refused: State.REJECTED,
        StageFailed: State.FAILED,
        Abandoned: State.ABANDONED,
    },
    State.BUILDING: {
        Built: State.PROVING,
        CarriedFailed: State.BUILDING,
        StageFailed: State.FAILED,
        Refused: State.REJECTED,
        Abandoned: State.ABANDONED,
    },
    State.PROVING: {
        Matched: State.SWITCHING,
        Timed: State.SWITCHING,
        Mismatched: State.REJECTED,
        CarriedFailed: State.BUILDING,
        StageFailed: State.FAILED,
        Abandoned: State.ABANDONED,
    },
    State.SWITCHING: {Switched: State.PROBATION, StageFailed: State.FAILED},
    State.PROBATION: {
        Stable: State.LIVE,
        BudgetSpent: State.ROLLING_BACK,
        ReproofFailed: State.ROLLING_BACK,
        RollbackAsked: State.ROLLING_BACK,
        RetireAsked: State.DRAINING,
    },
    State.LIVE: {
        Superseded: State.DRAINING,
        BudgetSpent: State.ROLLING_BACK,
        ReproofFailed: State.ROLLING_BACK,
        RollbackAsked: State.ROLLING_BACK,
        RetireAsked: State.DRAINING,
    },
    State.DRAINING: {Drained: State.RETIRED},
    State.ROLLING_BACK: {
        PreviousReady: State.ROLLED_BACK,
        PreviousLost: State.LIVE,
        StageFailed: State.BROKEN,
    },
    State.REJECTED: {},
    State.FAILED: {},
    State.ABANDONED: {},
    State.RETIRED: {Restored: State.LIVE},
    State.ROLLED_BACK: {},
    State.BROKEN: {},
}

#: On these the next rung, as long as there is one, is built before the table's answer counts.
NEXT_RUNG: frozenset[tuple[State, type[Event]]] = frozenset(
    {
        (State.BUILDING, StageFailed),
        (State.PROVING, StageFailed),
        (State.PROVING, Mismatched),
        (State.PROVING, Timed),
    }
)

#: What has to be done on entering a state.
ON_ENTRY: dict[State, tuple[Command, ...]] = {
    State.RECEIVED: (AwaitFile(),),
    State.VERIFYING: (TakeIn(),),
    State.BUILDING: (Build(),),
    State.PROVING: (Prove(),),
    State.SWITCHING: (Switch(),),
    State.PROBATION: (Watch(),),
    State.LIVE: (),
    State.DRAINING: (Drain(),),
    State.ROLLING_BACK: (RollBack(),),
    State.REJECTED: (Discard(),),
    State.FAILED: (Discard(),),
    State.ABANDONED: (Discard(),),
    State.RETIRED: (),
    State.ROLLED_BACK: (Discard(),),
    State.BROKEN: (Discard(),),
}

#: A stored state that needs processes which died with the daemon is entered again from here.
RESUME_AT: dict[State, State] = {
    State.PROVING: State.BUILDING,
    State.SWITCHING: State.BUILDING,
}

UNFINISHED: frozenset[State] = frozenset(
    {State.RECEIVED, State.VERIFYING, State.BUILDING, State.PROVING, State.SWITCHING}
)
SERVING: frozenset[State] = frozenset({State.PROBATION, State.LIVE, State.ROLLING_BACK})
ENDED: frozenset[State] = frozenset(state for state, row in TABLE.items() if not row)


class WrongEvent(SuperbrainError):
    """An event came to a state that has no row for it: a fault of the caller."""


def advance(deployment: Deployment, event: Event) -> tuple[Deployment, tuple[Command, ...]]:
    """Apply one event: the next deployment, and what to do once it is written down.

    Raises:
        WrongEvent: the table has no row for this event in this state.
    """
    target = TABLE[deployment.state].get(type(event))
    if target is None:
        expected = ", ".join(kind.__name__ for kind in TABLE[deployment.state]) or "nothing"
        msg = (
            f"deployment {deployment.id} ({deployment.name} {deployment.version}) is "
            f"{deployment.state} and expected {expected}, found {type(event).__name__}"
        )
        raise WrongEvent(msg)
    rung_index, outcomes = deployment.rung_index, _outcomes(deployment, event)
    if (deployment.state, type(event)) in NEXT_RUNG:
        following_rung = next_rung(deployment.ladder, rung_index, deployment.select, outcomes)
        if following_rung is not None:
            target, rung_index = State.BUILDING, following_rung
    reason = event.reason if isinstance(event, Bad) else deployment.reason
    if isinstance(event, (Stable, Restored)):
        reason = None
    following = msgspec.structs.replace(
        deployment,
        state=target,
        rung_index=rung_index,
        reason=reason,
        outcomes=outcomes,
        carried=_carried(deployment, event),
    )
    again = rung_index != deployment.rung_index or isinstance(event, CarriedFailed)
    discards = (Discard(),) if again else ()
    return following, discards + ON_ENTRY[target]


def _outcomes(deployment: Deployment, event: Event) -> tuple[RungOutcome, ...]:
    """What became of every rung, once this event has happened."""
    if deployment.state not in (State.BUILDING, State.PROVING):
        return deployment.outcomes
    match event:
        case Timed(milliseconds):
            outcome = RungOutcome(deployment.rung, milliseconds=milliseconds)
        case Matched() if not any(_good(one, deployment) for one in deployment.outcomes):
            outcome = RungOutcome(deployment.rung)
        case StageFailed(reason) | Mismatched(reason) | Refused(reason):
            outcome = RungOutcome(deployment.rung, reason)
        case _:
            return deployment.outcomes
    return noted(deployment.outcomes, outcome)


def _carried(deployment: Deployment, event: Event) -> tuple[RungOutcome, ...]:
    """What became of the engines that the bundle brought along, once this event has happened."""
    match event:
        case Built(carried=True):
            return noted(deployment.carried, RungOutcome(deployment.rung))
        case CarriedFailed(reason):
            return noted(deployment.carried, RungOutcome(deployment.rung, reason))
    return deployment.carried


def _good(outcome: RungOutcome, deployment: Deployment) -> bool:
    return outcome.rung == deployment.rung and outcome.reason is None


def accepts(deployment: Deployment, kind: type[Event]) -> bool:
    """Tell whether the table has a row for this kind of event now."""
    return kind in TABLE[deployment.state]


def detail(event: Event) -> str:
    """Say in a sentence what there is to know of an event beside its name."""
    match event:
        case Timed(milliseconds):
            return f"a golden request takes {milliseconds:.3g} ms"
        case Bad(reason):
            return reason.message
    return ""


def resume(deployment: Deployment) -> tuple[Deployment, tuple[Command, ...]]:
    """Continue a stored deployment after a restart; its processes are gone."""
    state = RESUME_AT.get(deployment.state, deployment.state)
    if state is deployment.state:
        return deployment, ON_ENTRY[state] if TABLE[state] else ()
    return msgspec.structs.replace(deployment, state=state), ON_ENTRY[state]
