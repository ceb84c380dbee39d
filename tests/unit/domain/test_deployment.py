"""The transition table and its interpreter, by rows and by random walks."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, Reason, State, advance, resume
from superbrain.domain.manifest import Select

REASON = Reason("CODE", "what happened", "what to do")
EVENTS: list[type[life.Event]] = sorted(
    {kind for row in life.TABLE.values() for kind in row}, key=lambda kind: kind.__name__
)


def a_deployment(state: State = State.RECEIVED, ladder: tuple[str, ...] = ("one",)) -> Deployment:
    return Deployment(
        id=7, name="ocr", version="1.0.0", sequence=1, digest="ab", ladder=ladder, state=state
    )


def make(kind: type[life.Event], milliseconds: float = 1.0) -> life.Event:
    if kind is life.Timed:
        return life.Timed(milliseconds)
    return kind(REASON) if issubclass(kind, life.Bad) else kind()


def test_every_state_has_a_row_and_an_entry() -> None:
    assert set(life.TABLE) == set(State) == set(life.ON_ENTRY)


def test_every_state_can_be_reached_from_received() -> None:
    reached, edge = {State.RECEIVED}, [State.RECEIVED]
    while edge:
        for target in life.TABLE[edge.pop()].values():
            if target not in reached:
                reached.add(target)
                edge.append(target)
    assert reached == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_an_event_leads_where_the_table_says_or_is_refused(
    state: State, kind: type[life.Event]
) -> None:
    before = a_deployment(state)
    target = life.TABLE[state].get(kind)
    if target is None:
        with pytest.raises(life.WrongEvent, match=f"is {state} and expected"):
            advance(before, make(kind))
    else:
        after, commands = advance(before, make(kind))
        again = (life.Discard(),) if kind is life.CarriedFailed else ()
        assert (after.state, commands) == (target, again + life.ON_ENTRY[target])


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (State.BUILDING, life.StageFailed),
        (State.PROVING, life.StageFailed),
        (State.PROVING, life.Mismatched),
    ],
)
def test_a_rung_that_fails_is_followed_by_the_next_one(
    state: State, kind: type[life.Event]
) -> None:
    after, commands = advance(a_deployment(state, ("first", "second")), make(kind))
    assert (after.state, after.rung) == (State.BUILDING, "second")
    assert commands == (life.Discard(), life.Build())


def test_a_graph_that_contradicts_the_manifest_is_rejected_without_another_rung() -> None:
    after, _ = advance(a_deployment(State.BUILDING, ("first", "second")), life.Refused(REASON))
    assert after.state is State.REJECTED


@pytest.mark.parametrize("state", [State.BUILDING, State.PROVING])
def test_an_engine_of_the_bundle_that_fails_is_set_aside_and_the_same_rung_built(
    state: State,
) -> None:
    before = a_deployment(state, ("first", "second"))
    assert before.may_use_carried
    after, commands = advance(before, life.CarriedFailed(REASON))
    assert (after.state, after.rung) == (State.BUILDING, "first")
    assert commands == (life.Discard(), life.Build())
    assert after.carried == (life.RungOutcome("first", REASON),)
    assert not after.may_use_carried
    assert after.outcomes == ()


def test_setting_aside_counts_for_one_rung_only_and_outlives_the_daemon() -> None:
    aside, _ = advance(a_deployment(State.BUILDING, ("a", "b")), life.CarriedFailed(REASON))
    assert not resume(aside)[0].may_use_carried
    following, _ = advance(aside, life.StageFailed(REASON))
    assert (following.rung, following.may_use_carried) == ("b", True)


def test_that_the_engine_of_the_bundle_is_loaded_is_known() -> None:
    after, _ = advance(a_deployment(State.BUILDING), life.Built(carried=True))
    assert after.carried == (life.RungOutcome("one"),)
    assert after.may_use_carried


def test_the_reason_of_what_went_wrong_is_kept() -> None:
    after, _ = advance(a_deployment(State.VERIFYING), life.Refused(REASON))
    assert after.reason == REASON


def test_a_version_that_became_stable_carries_no_old_reason() -> None:
    before = msgspec.structs.replace(a_deployment(State.PROBATION), reason=REASON)
    assert advance(before, life.Stable())[0].reason is None


@pytest.mark.parametrize("state", [State.PROVING, State.SWITCHING])
def test_what_needs_processes_is_built_again_after_a_restart(state: State) -> None:
    resumed, commands = resume(a_deployment(state))
    assert (resumed.state, commands) == (State.BUILDING, (life.Build(),))


@pytest.mark.parametrize("state", sorted(life.ENDED))
def test_nothing_is_resumed_that_has_ended(state: State) -> None:
    assert resume(a_deployment(state))[1] == ()


class AnyLife(RuleBasedStateMachine):
    """Whatever happens in whatever order, and whenever the daemon is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.deployment = a_deployment(ladder=("first", "second", "third"))
        self.was_proven = False

    @initialize(select=st.sampled_from(["first", "fastest"]))
    def it_begins(self, select: Select) -> None:
        self.deployment = msgspec.structs.replace(self.deployment, select=select)

    @precondition(lambda self: bool(life.TABLE[self.deployment.state]))
    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        kinds = sorted(life.TABLE[self.deployment.state], key=lambda kind: kind.__name__)
        kind = data.draw(st.sampled_from(kinds))
        before = self.deployment
        self.deployment, _ = advance(before, make(kind))
        if kind in (life.Matched, life.Timed):
            self.was_proven = True
        if self.deployment.state is State.BUILDING:
            self.was_proven = False

    @rule()
    def the_daemon_is_killed(self) -> None:
        self.deployment, _ = resume(self.deployment)
        if self.deployment.state is State.BUILDING:
            self.was_proven = False

    @invariant()
    def nothing_unproven_serves(self) -> None:
        assert self.was_proven or self.deployment.state not in life.SERVING

    @invariant()
    def it_stays_on_its_ladder(self) -> None:
        assert self.deployment.rung in ("first", "second", "third")


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
