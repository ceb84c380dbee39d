"""What the demo watches: a deployment going through its states, and what the clients saw."""

from __future__ import annotations

import time
from collections.abc import Iterable

from scripts.demo_clients import Seen, quantile_ms
from scripts.demo_page import ClaimBroken, Page
from scripts.demo_stage import Stage
from superbrain.domain.operations import Transition

ENDED_BADLY = frozenset({"REJECTED", "FAILED", "ABANDONED", "ROLLED_BACK", "BROKEN"})
EXPLAINED = {
    "RECEIVED": "a file came into the inbox",
    "VERIFYING": "signature, manifest and every byte are checked while it is copied",
    "BUILDING": "a worker process of its own loads the model",
    "PROVING": "that worker answers the golden cases",
    "SWITCHING": "all were reproduced: the traffic moves over",
    "PROBATION": "it serves; what served before stays warm beside it",
    "LIVE": "it has done well; what served before is retired",
    "REJECTED": "it does not do what its author recorded",
}


def follow(stage: Stage, model: str, version: str, last: str, began: float) -> list[Transition]:
    """Show a deployment's states as it goes through them, until the one that is `last`."""
    wall = time.time() - (time.monotonic() - began)
    shown = 0
    steps: list[Transition] = []

    def there() -> bool:
        nonlocal shown, steps
        steps = stage.steps_of(model, version)
        for step in steps[shown:]:
            after = max(0.0, step.at.timestamp() - wall)
            explained = EXPLAINED.get(step.state_to, step.detail)
            stage.page.output(f"{after:5.1f} s  {step.state_to.lower():<10} {explained}")
        shown = len(steps)
        return bool(steps) and step_ends(steps[-1], last)

    stage.wait_for(there, f"{model} {version} in the state {last.lower()}")
    stage.page.gap()
    return steps


def step_ends(step: Transition, last: str) -> bool:
    """Whether a deployment is where it should be.

    Raises:
        ClaimBroken: it has ended elsewhere.
    """
    if step.state_to != last and step.state_to in ENDED_BADLY:
        raise ClaimBroken(
            f"{step.model} {step.version} became {step.state_to.lower()}: {step.detail}"
        )
    return step.state_to == last


def passed(steps: Iterable[Transition], state: str) -> bool:
    """Whether a deployment has been in that state."""
    return any(step.state_to == state for step in steps)


def claim_flawless(page: Page, seen: Seen) -> None:
    """Every question was answered, and rightly."""
    failed = f" (the first: {seen.failures[0]})" if seen.failures else ""
    page.claim(
        seen.asked == len(seen.answers) > 0 and not seen.failures,
        f"{seen.asked} asked, {len(seen.answers)} answered, {len(seen.failures)} failed{failed}",
    )
    wrong = [answer for answer in seen.answers if not answer.right]
    page.claim(not wrong, f"{len(wrong)} wrong answers")


def latency_table(seen: Seen, phases: dict[str, tuple[float, float]]) -> Iterable[str]:
    """How long answers took, phase by phase."""
    yield f"{'':<24}{'answers':>8}{'p50 ms':>8}{'p99 ms':>8}"
    for name, (begin, end) in phases.items():
        answers = seen.between(begin, end)
        if answers:
            p50, p99 = quantile_ms(answers, 0.5), quantile_ms(answers, 0.99)
            yield f"{name:<24}{len(answers):>8}{p50:>8.1f}{p99:>8.1f}"
