"""Bringing back what served: on which rungs, and what to note of those that it cannot return on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from superbrain.domain.deployment import RungOutcome
from superbrain.domain.ladder import fallbacks, noted

if TYPE_CHECKING:
    from superbrain.domain.deployment import Deployment, Reason


def rungs_to_return_on(deployment: Deployment) -> tuple[int, ...]:
    """Give the rungs on which to bring back what served, the one it served on first."""
    return fallbacks(
        deployment.ladder, deployment.rung_index, deployment.select, deployment.outcomes
    )


def not_returned(deployment: Deployment, reason: Reason) -> Deployment:
    """Note that what served could not be brought back on its rung."""
    outcome = RungOutcome(deployment.rung, reason)
    return msgspec.structs.replace(deployment, outcomes=noted(deployment.outcomes, outcome))


def with_carried_aside(deployment: Deployment, rung: str, reason: Reason) -> Deployment:
    """Note that what served cannot be brought back with the engines that its bundle brings."""
    carried = noted(deployment.carried, RungOutcome(rung, reason))
    return msgspec.structs.replace(deployment, carried=carried)
