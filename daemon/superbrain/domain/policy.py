"""Policies that can be read whole: when to restart, when to give up, when to try again.

Each takes facts and gives one answer; none has a clock or a memory of its own. Times are in
seconds of a monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

RESTART_FIRST_S = 0.0
RESTART_BASE_S = 0.5
RESTART_MAX_S = 60.0
RESTART_QUIET_S = 300.0
STAND_BY_LEAST_S = 2.0
STAND_BY_TIMES = 10.0
STAND_BY_GRACE_S = 10.0
GATEWAY_RESTART_BASE_S = 0.1
GATEWAY_RESTART_MAX_S = 2.0
GATEWAY_RESTART_WINDOW_S = 60.0
RETRY_DELAYS_S = (30.0, 120.0, 600.0)


class ErrorBudget(msgspec.Struct, frozen=True):
    """How much may go wrong before the previous version is brought back.

    `crashes`: worker deaths allowed within `window_s`; `error_share`: share of requests that may
    end INTERNAL, judged from `min_requests` on.
    """

    crashes: int = 2
    error_share: float = 0.2
    min_requests: int = 20
    window_s: float = 60.0


def restart_delay_s(deaths: Sequence[float], now: float) -> float:
    """Say how long to wait before a worker is started again.

    The first death is answered at once; every further one doubles the wait, up to a bound. A quiet
    time without any ends the streak.

    Args:
        deaths: when they happened, oldest first.
        now: the present.
    """
    streak = death_streak(deaths, now)
    if streak <= 1:
        return RESTART_FIRST_S
    return float(min(RESTART_MAX_S, RESTART_BASE_S * 2 ** min(streak - 2, 30)))


def death_streak(deaths: Sequence[float], now: float) -> int:
    """Count the deaths that followed each other without a quiet time between them, up to now."""
    streak, later = 0, now
    for at in reversed(deaths):
        if later - at > RESTART_QUIET_S:
            break
        streak, later = streak + 1, at
    return streak


def hang_limit_s(request_timeout_ms: int, grace_s: float) -> float:
    """Say how long one execution may take before its worker is taken to hang."""
    return request_timeout_ms / 1000 + grace_s


def stand_by_limit_s(request_timeout_ms: int, proven_ms: float, longest_s: float) -> float:
    """Say how long a worker that makes room for another may go on with what it executes.

    Some multiple of what it is known to need, so that one that hangs does not hold up a swap.

    Args:
        request_timeout_ms: the manifest's limit of a request.
        proven_ms: of the slowest golden case in this process.
        longest_s: of all runs so far.
    """
    most_s = request_timeout_ms / 1000 + STAND_BY_GRACE_S
    known_s = max(proven_ms / 1000, longest_s)
    return min(most_s, max(STAND_BY_LEAST_S, STAND_BY_TIMES * known_s))


def gateway_restart_delay_s(deaths: Sequence[float], now: float) -> float:
    """Say how long to wait before the gateway is started again.

    It runs nothing but our own code and nobody is answered without it, so the wait stays short: it
    only keeps a gateway that cannot start from using up a processor.
    """
    recent = sum(1 for at in deaths if now - at <= GATEWAY_RESTART_WINDOW_S)
    if recent <= 1:
        return 0.0
    return float(min(GATEWAY_RESTART_MAX_S, GATEWAY_RESTART_BASE_S * 2 ** (recent - 2)))


def budget_spent(
    budget: ErrorBudget, deaths: Sequence[float], requests: int, internal_errors: int, now: float
) -> str:
    """Say in a sentence why the budget is spent, or nothing when it is not."""
    recent = sum(1 for at in deaths if now - at <= budget.window_s)
    if recent > budget.crashes:
        return (
            f"its process died {recent} times within {budget.window_s:g} s, "
            f"{budget.crashes} are allowed"
        )
    if requests >= budget.min_requests and internal_errors > budget.error_share * requests:
        return (
            f"{internal_errors} of {requests} requests ended INTERNAL, "
            f"at most {budget.error_share:.0%} are allowed"
        )
    return ""


def retry_delay_s(attempt: int) -> float | None:
    """Say when attempt number `attempt`, which failed, is followed by another; None for never."""
    return RETRY_DELAYS_S[attempt - 1] if attempt <= len(RETRY_DELAYS_S) else None
