"""Brief outages: when a version may stop so that its successor has room, and what is told of it.

Pure. A candidate that does not fit beside what serves is refused, unless somebody has said that the
model may be without an answer for a while: the author in the bundle (`serving.brief_outage`), or
the site in its configuration (`outage.allow`), whose word counts more.

>>> OutagePolicy(allow="never").allows(asked=True)
False
"""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal

import msgspec

from superbrain.domain.deployment import Deployment, Reason

OUTAGE_TOO_LONG: Final = "OUTAGE_TOO_LONG"
OUTAGE_CUT_SHORT: Final = "OUTAGE_CUT_SHORT"
#: Names of the steps in a candidate's history between which nobody answered for its model.
BEGAN, ENDED = "OutageBegan", "OutageEnded"

Outcome = Literal["under way", "switched", "went back", "cut short"]


class OutagePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a model may be without an answer for a while, and for how long.

    `allow`: `bundle` (as its bundle says), `never` or `always`; `limit_s`: seconds from the stop of
    the old version after which a new one that does not serve yet is given up.
    """

    allow: Literal["bundle", "never", "always"] = "bundle"
    limit_s: float = 60.0

    def allows(self, *, asked: bool) -> bool:
        """Whether an outage may be; `asked`: whether the bundle says that it may."""
        return self.allow == "always" or (self.allow == "bundle" and asked)


class OutageFacts(msgspec.Struct, frozen=True):
    """The newest outage of a model since the daemon started: for which version, and why.

    `seconds`: between the stop of the old version and the first process that answered again; so far
    while it is under way.
    """

    began: dt.datetime
    version: str
    rung: str
    why: str
    limit_s: float
    seconds: float
    outcome: Outcome = "under way"


def told_how_to_allow(policy: OutagePolicy, reason: Reason) -> Reason:
    """Add to a refusal that a brief outage would help, and who has to say so."""
    if policy.allow == "never":
        return reason
    how = (
        "allow a brief outage: serving.brief_outage in the bundle, or outage.allow = "
        '"always" in the configuration'
    )
    return msgspec.structs.replace(reason, mend=f"{reason.mend}; or {how}")


def too_long(named: str) -> Reason:
    """Say that a candidate took more time than an outage may last."""
    return Reason(
        OUTAGE_TOO_LONG,
        f"{named} did not serve within outage.limit_s, the longest that nobody may answer",
        "Raise outage.limit_s, or let it load faster: fewer golden cases, fewer instances",
    )


def cut_short(candidate: Deployment) -> Reason:
    """Say that the daemon ended while room had been made for a candidate."""
    return Reason(
        OUTAGE_CUT_SHORT,
        f"the daemon ended while {candidate.name} was without an answer for {candidate.version} "
        f"on {candidate.rung}, so this is not tried there again",
        "See why it ended in its log; `superbrain retry` tries once more",
    )


def waiting_sentence(serving: str, candidate: str) -> str:
    """Say to callers who wait, such as for `ocr 3.1.0`, why nobody answers."""
    return f"{serving} has stopped to make room for {candidate}, a brief outage"
