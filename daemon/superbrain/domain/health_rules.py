"""From facts to judgement: which of them an operator should know, and how bad they are.

Pure: facts in, problems out, the worst first. The overall status is the worst severity among the
problems, and a host without problems is "ok", also when it serves no model yet.

| severity | means |
|---|---|
| critical | callers get no answers, or are about to, or get them from what was revoked |
| warning  | callers get answers, but somebody should look before that changes |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from superbrain.domain.deployment import UNFINISHED, State
from superbrain.domain.health import (
    GatewayFacts,
    HostFacts,
    InboxFile,
    ModelFacts,
    Problem,
    Severity,
)
from superbrain.domain.quantities import bytes_text

DISK_FREE_CRITICAL_PERCENT: Final = 1.0
DISK_FREE_WARNING_PERCENT: Final = 5.0
DISK_FREE_WARNING_BYTES: Final = 1 << 30
MEMORY_AVAILABLE_WARNING_PERCENT: Final = 5.0

# Ways for a deployment to end that somebody has to look at. RETIRED and ABANDONED are as intended.
_ENDINGS: Final[dict[str, str]] = {
    State.REJECTED: "was rejected",
    State.FAILED: "failed",
    State.ROLLED_BACK: "was rolled back",
    State.BROKEN: "is broken",
}
REPROOF_FAILED: Final = "REPROOF_FAILED"
_WORTH_A_WORD_S: Final = 0.5
_SLOW_MEND: Final = (
    "compare with the host's load in superbrain status; if the host is idle, tell the author, and "
    "go back with superbrain rollback if it gets worse"
)
ENDED_BADLY: Final = frozenset(_ENDINGS)

_BADNESS: Final[dict[Severity, int]] = {"ok": 0, "warning": 1, "critical": 2}


class Judgement(NamedTuple):
    """The overall status, whether this host can answer for all its models, and the problems."""

    status: Severity
    ready: bool
    problems: list[Problem]


def judge(
    *,
    gateway: GatewayFacts,
    host: HostFacts,
    models: Sequence[ModelFacts],
    inbox: Sequence[InboxFile] = (),
    inbox_more: Mapping[str, int] = MappingProxyType({}),
    known: Iterable[Problem] = (),
) -> Judgement:
    """Judge the facts; `known` are problems that the caller has found by itself.

    `inbox_more` counts by outcome the files of the inbox that `inbox` does not list.
    """
    problems = [
        *known,
        *_gateway_problems(gateway),
        *(problem for model in models for problem in _model_problems(model)),
        *_disk_problems(host),
        *_memory_problems(host),
        *(problem for file in inbox for problem in _inbox_problems(file)),
        *_more_inbox_problems(inbox_more),
    ]
    problems.sort(key=lambda problem: -_BADNESS[problem.severity])
    serving = [model for model in models if model.deployment_id]
    answers = all(model.state in {"ready", "degraded"} for model in serving)
    return Judgement(worst(problems), gateway.running and answers, problems)


def status_line(models: Sequence[ModelFacts]) -> str:
    """One line for `systemctl status`: `2 of 2 models ready; ocr 3.1.0 proving 43 %`."""
    serving = [model for model in models if model.deployment_id]
    ready = sum(model.state == "ready" for model in serving)
    parts = [f"{ready} of {len(serving)} models ready" if serving else "no model is installed"]
    for model in models:
        candidate = model.candidate
        if candidate is not None and candidate.state in UNFINISHED:
            percent = "" if candidate.percent is None else f" {candidate.percent:.0f} %"
            parts.append(f"{model.name} {candidate.version} {candidate.state.lower()}{percent}")
    return "; ".join(parts)


def worst(problems: Iterable[Problem]) -> Severity:
    """The severity of the worst problem; "ok" when there is none."""
    return max((problem.severity for problem in problems), key=_BADNESS.__getitem__, default="ok")


def _gateway_problems(gateway: GatewayFacts) -> Iterator[Problem]:
    if not gateway.running:
        yield Problem(
            "critical",
            "gateway",
            f"expected the gateway to listen on {gateway.endpoint}, but it is not running",
            "it is started again by itself; if that does not help, read the daemon's log: "
            "journalctl -u superbraind, or its terminal",
        )


def _model_problems(model: ModelFacts) -> Iterator[Problem]:
    named = f"{model.name} {model.version}".rstrip()
    subject = f"model {model.name}"
    restarting = _restarting(model)
    if model.state == "unavailable" and model.deployment_id:
        message = model.last_error or f"{named} does not answer"
        mend = model.mend or f"see what happened with: superbrain history {model.name}"
        yield Problem("critical", subject, f"{message}{restarting}", mend)
    elif model.state == "starting" and restarting:
        message = model.last_error or f"{named} has died"
        mend = f"see what happened with: superbrain history {model.name}"
        yield Problem("critical", subject, f"{message}{restarting}", mend)
    elif model.state == "degraded" and (not model.slower or model.fault or restarting):
        message = model.last_error or f"{named} answers, but not as well as it should"
        mend = model.mend or f"see its facts with: superbrain report {model.name}"
        severity: Severity = "critical" if model.fault == REPROOF_FAILED else "warning"
        yield Problem(severity, subject, f"{message}{restarting}", mend)
    outage = model.outage
    if outage is not None and outage.outcome == "under way":
        message = (
            f"{named} has stopped to make room for {outage.version} on {outage.rung}: nobody has "
            f"answered for {outage.seconds:.1f} s, requests wait"
        )
        mend = f"nothing: it is over in {outage.limit_s:g} s, or {named} comes back"
        yield Problem("warning", subject, message, mend)
    if model.slower:
        yield Problem("warning", subject, f"{named} has become {model.slower}", _SLOW_MEND)
    yield from _candidate_problems(model)


def _restarting(model: ModelFacts) -> str:
    """Say when a worker that died is started again, if that is not at once."""
    wait_s = model.restarts_in_s
    return (
        f"; restarting in {wait_s:.0f} s"
        if wait_s is not None and wait_s >= _WORTH_A_WORD_S
        else ""
    )


def _candidate_problems(model: ModelFacts) -> Iterator[Problem]:
    candidate = model.candidate
    if candidate is None or candidate.state not in _ENDINGS:
        return
    message = f"{model.name} {candidate.version} {_ENDINGS[candidate.state]}"
    yield Problem(
        "warning",
        f"model {model.name}",
        f"{message}: {candidate.detail}" if candidate.detail else message,
        candidate.mend or f"read why: superbrain report {model.name} --version {candidate.version}",
    )


def _disk_problems(host: HostFacts) -> Iterator[Problem]:
    if not host.disk_total_bytes:
        return
    percent = 100 * host.disk_free_bytes / host.disk_total_bytes
    scarce = percent < DISK_FREE_WARNING_PERCENT or host.disk_free_bytes < DISK_FREE_WARNING_BYTES
    if not scarce:
        return
    free, total = bytes_text(host.disk_free_bytes), bytes_text(host.disk_total_bytes)
    yield Problem(
        "critical" if percent < DISK_FREE_CRITICAL_PERCENT else "warning",
        "disk",
        f"the store's file system has {free} of {total} free ({percent:.1f} %), "
        f"expected {DISK_FREE_WARNING_PERCENT:g} % and {bytes_text(DISK_FREE_WARNING_BYTES)}",
        "make room: new bundles and engines cannot be stored on a full disk",
    )


def _memory_problems(host: HostFacts) -> Iterator[Problem]:
    if not host.memory_total_bytes:
        return
    percent = 100 * host.memory_available_bytes / host.memory_total_bytes
    if percent < MEMORY_AVAILABLE_WARNING_PERCENT:
        available = bytes_text(host.memory_available_bytes)
        yield Problem(
            "warning",
            "memory",
            f"{available} of {bytes_text(host.memory_total_bytes)} memory is available "
            f"({percent:.1f} %), expected {MEMORY_AVAILABLE_WARNING_PERCENT:g} %",
            "see who uses it with: superbrain status",
        )


def _inbox_problems(file: InboxFile) -> Iterator[Problem]:
    if file.outcome in {"refused", "stalled"}:
        mend = file.mend or "take the file out of the inbox, or replace it by a good one"
        yield Problem("warning", f"inbox {file.name}", file.message, mend)


def _more_inbox_problems(more: Mapping[str, int]) -> Iterator[Problem]:
    """Say how many files are not listed that somebody has to look at."""
    if refused := more.get("refused", 0):
        yield Problem(
            "warning",
            "inbox",
            f"{refused} more files were refused",
            "NAME.refused.txt beside each says why; take what is not needed out of the inbox",
        )
    if stalled := more.get("stalled", 0):
        yield Problem(
            "warning",
            "inbox",
            f"{stalled} more copies are not complete and do not grow any more",
            "copy them again, or take them out of the inbox",
        )
