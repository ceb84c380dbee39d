"""What of a deployment's life goes into the audit trail, and in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superbrain.domain import deployment as life
from superbrain.domain.audit import Action
from superbrain.domain.deployment import Deployment, Reason, State

if TYPE_CHECKING:
    from superbrain.host.audit_log import AuditLog

_ENDS = {
    State.REJECTED: (Action.BUNDLE_REFUSED, "rejected"),
    State.FAILED: (Action.VERSION_ENDED, "failed"),
    State.ABANDONED: (Action.VERSION_ENDED, "abandoned"),
    State.BROKEN: (Action.VERSION_ENDED, "broken"),
    State.RETIRED: (Action.VERSION_ENDED, "retired"),
    State.ROLLED_BACK: (Action.VERSION_CHANGED, "rolled back"),
}
_STEPS = {
    life.Trusted: (Action.BUNDLE_ACCEPTED, "accepted"),
    life.Switched: (Action.VERSION_CHANGED, "serves"),
    life.PreviousLost: (Action.VERSION_CHANGED, "still serves"),
}


class Trail:
    """Writes entries for what deployments do."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def step(self, after: Deployment, happened: life.Event) -> None:
        """Note a step, if it changed what is trusted or what serves."""
        found = _STEPS.get(type(happened)) or _ENDS.get(after.state)
        if found is None:
            return
        action, outcome = found
        subject = f"{after.name} {after.version}"
        self._audit.write(action, subject, outcome, _detail(after))

    def refused(self, name: str, reason: Reason) -> None:
        """Note a file of the inbox that was put aside."""
        if name.endswith(".sbb"):
            detail = f"{reason.code}: {reason.message}"
            self._audit.write(Action.BUNDLE_REFUSED, name, "refused", detail)


def _detail(deployment: Deployment) -> str:
    detail = f"bundle {deployment.digest}, sequence {deployment.sequence}"
    reason = deployment.reason
    return f"{reason.code}: {reason.message}; {detail}" if reason else detail
