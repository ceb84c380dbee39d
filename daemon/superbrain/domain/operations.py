"""What an operator may ask of the daemon over the control socket, and what comes back.

`ORDERS` change something and go into the audit trail; all others only ask.

One JSON structure each way, over a ZeroMQ REQ/REP pair on a socket of its own, with its own
permissions; it never shares a port with inference. `kind` names the structure.
"""

from __future__ import annotations

import datetime as dt

import msgspec

from superbrain.domain.audit import Entry
from superbrain.domain.deployment import Reason
from superbrain.domain.health import Health
from superbrain.domain.manifest import Select
from superbrain.domain.proof import Proof
from superbrain.domain.rung_facts import RungFacts
from superbrain.domain.settings import Setting
from superbrain.domain.trust_facts import TrustFacts


class Operation(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """Base of every question and order."""


class GetHealth(Operation, frozen=True, tag="health"):
    """Ask for the health report; answered by `HealthReply`."""


class GetHistory(Operation, frozen=True, tag="history"):
    """Ask for the newest `limit` transitions, of one model or of all; `HistoryReply`."""

    model: str = ""
    limit: int = 50


class GetReport(Operation, frozen=True, tag="report"):
    """Ask for the proofs of a model's deployment: the current one, or `version`; `ReportReply`."""

    model: str
    version: str = ""


class Rollback(Operation, frozen=True, tag="rollback"):
    """Bring the previous good version back; `Outcome`."""

    model: str


class Retire(Operation, frozen=True, tag="retire"):
    """Stop serving a model; `Outcome`."""

    model: str


class Retry(Operation, frozen=True, tag="retry"):
    """Try a failed, rejected or retired deployment of a model again; `Outcome`."""

    model: str
    version: str = ""


class Reload(Operation, frozen=True, tag="reload"):
    """Read the trust folder again and look through the inbox now; `Outcome`."""


class GetTrust(Operation, frozen=True, tag="trust"):
    """Ask whom this host believes; `TrustReply`."""


class ImportTrust(Operation, frozen=True, tag="import_trust"):
    """Take trust updates, each as the text of its envelope, in any order; `Outcome`."""

    updates: list[str]


class ForgetTime(Operation, frozen=True, tag="forget_time"):
    """Forget the latest time this host has seen: its clock was ahead; `Outcome`."""


class GetAudit(Operation, frozen=True, tag="audit"):
    """Ask for the newest `limit` entries of the audit trail; `AuditReply`."""

    limit: int = 50


class VerifyAudit(Operation, frozen=True, tag="verify_audit"):
    """Check the whole audit trail; `AuditVerdict`."""


class Transition(msgspec.Struct, frozen=True):
    """One step of one deployment's life, as journalled."""

    at: dt.datetime
    deployment_id: int
    model: str
    version: str
    event: str
    state_from: str
    state_to: str
    rung: str = ""
    detail: str = ""


class ProofRecord(msgspec.Struct, frozen=True):
    """One journalled proof, passed or not."""

    at: dt.datetime
    worker: int
    proof: Proof


class Reply(msgspec.Struct, frozen=True, tag_field="kind"):
    """Base of every answer."""


class HealthReply(Reply, frozen=True, tag="health"):
    """Answer to `GetHealth`."""

    health: Health


class HistoryReply(Reply, frozen=True, tag="history"):
    """Answer to `GetHistory`, newest first."""

    transitions: list[Transition]


class ReportReply(Reply, frozen=True, tag="report"):
    """Answer to `GetReport`: the deployment, its manifest's facts, every proof, oldest first.

    `stored`: whether its bundle is in the store. Of one that is not, the journal alone tells: no
    `description`, no `settings`, and `created` is None. `reason` is why it ended badly, if it did.
    """

    model: str
    version: str
    deployment_id: int
    state: str
    digest: str
    sequence: int
    created: dt.datetime | None
    description: str
    ladder: list[str]
    rung: str
    signers: list[str]
    settings: list[Setting]
    proofs: list[ProofRecord]
    transitions: list[Transition]
    rungs: list[RungFacts] = []
    select: Select = "first"
    stored: bool = True
    reason: Reason | None = None


class TrustReply(Reply, frozen=True, tag="trust"):
    """Answer to `GetTrust`."""

    trust: TrustFacts


class AuditReply(Reply, frozen=True, tag="audit"):
    """Answer to `GetAudit`, newest first."""

    entries: list[Entry]


class AuditVerdict(Reply, frozen=True, tag="audit_verdict"):
    """Answer to `VerifyAudit`: which entries there are, and every fault of the chain."""

    first: int
    last: int
    entries: int
    sha256: str
    faults: list[str]


class Outcome(Reply, frozen=True, tag="outcome"):
    """The order was carried out (or is under way, as `message` says)."""

    message: str


class Refusal(Reply, frozen=True, tag="refusal"):
    """The order was not carried out, and nothing changed."""

    code: str
    message: str
    mend: str = ""


AnyOperation = (
    GetHealth
    | GetHistory
    | GetReport
    | GetTrust
    | GetAudit
    | VerifyAudit
    | Rollback
    | Retire
    | Retry
    | Reload
    | ImportTrust
    | ForgetTime
)
AnyReply = (
    HealthReply
    | HistoryReply
    | ReportReply
    | TrustReply
    | AuditReply
    | AuditVerdict
    | Outcome
    | Refusal
)
ORDERS = (Rollback, Retire, Retry, Reload, ImportTrust, ForgetTime)
