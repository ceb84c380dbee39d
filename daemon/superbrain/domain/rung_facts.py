"""A deployment's ladder as people and programs read it: what became of every rung on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from superbrain.domain.carried import UNFIT
from superbrain.domain.deployment import SERVING, Deployment, RungOutcome, State

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a reason's code means in two words. The codes are the names in engines/port.py, and those
#: that `stages` and `child` give.
VERDICTS: Final[Mapping[str, str]] = {
    "NotInstalled": "not installed",
    "NoDevice": "no device",
    "DeviceUnfit": "device unfit",
    "PrecisionMissing": "no such precision",
    "RungUnavailable": "unknown here",
    "EngineError": "not built",
    "BuildFailed": "not built",
    "BuildTimedOut": "not built",
    "EngineRefused": "refused",
    UNFIT: "not for this host",
    "GOLDEN_MISMATCH": "drifts",
    "TIMED_OUT": "too slow",
    "DIED": "crashed",
}
_ELSE: Final = "failed"
_CARRIED: Final = " (bundle's engine)"
_UNDER_WAY: Final = frozenset({State.BUILDING, State.PROVING})
_HAS_SERVED: Final = frozenset(
    {State.SWITCHING, State.DRAINING, State.RETIRED, State.ROLLED_BACK, State.BROKEN} | SERVING
)


class RungFacts(msgspec.Struct, frozen=True):
    """One rung: in two words what became of it, and why.

    `verdict` is `chosen`, `proven` (but another one is chosen), `under way`, `not tried`, or what
    speaks against it, with the whole reason in `reason` and its figures. `milliseconds`: the median
    time of a golden request, where rungs were compared.
    """

    rung: str
    verdict: str
    milliseconds: float | None = None
    reason: str = ""
    mend: str = ""


def rung_facts(deployment: Deployment) -> list[RungFacts]:
    """Tell of every rung of a deployment's ladder, in the ladder's order.

    Engines of the bundle's own that were set aside stand before the rung that they were for.
    """
    known = {one.rung: one for one in deployment.outcomes}
    carried = {one.rung: one for one in deployment.carried}
    facts: list[RungFacts] = []
    for rung in deployment.ladder:
        mine = _facts(deployment, rung, known.get(rung))
        if rung in carried:
            mine, aside = _with_carried(mine, carried[rung])
            facts += aside
        facts.append(mine)
    return facts


def _with_carried(rung: RungFacts, outcome: RungOutcome) -> tuple[RungFacts, list[RungFacts]]:
    """Tell of the bundle's own engines: with the rung that runs them, or before it why not."""
    if reason := outcome.reason:
        verdict = VERDICTS.get(reason.code, _ELSE)
        return rung, [RungFacts(rung.rung + _CARRIED, verdict, None, reason.message, reason.mend)]
    if rung.reason:
        return rung, []
    return msgspec.structs.replace(rung, reason="with the engine that the bundle brings along"), []


def _facts(deployment: Deployment, rung: str, outcome: RungOutcome | None) -> RungFacts:
    milliseconds = outcome.milliseconds if outcome else None
    if rung == deployment.rung and deployment.state in _UNDER_WAY:
        return RungFacts(rung, "under way", milliseconds)
    if outcome is not None and outcome.reason is not None:
        reason = outcome.reason
        verdict = VERDICTS.get(reason.code, _ELSE)
        return RungFacts(rung, verdict, None, reason.message, reason.mend)
    if rung == deployment.rung and deployment.state in _HAS_SERVED:
        return RungFacts(rung, "chosen", milliseconds)
    return RungFacts(rung, "proven" if outcome else "not tried", milliseconds)
