"""How far a build is, from the phases that a builder reports.

Phases nest: one step of a phase may be a phase of its own, with steps of its own. A phase counts as
its finished steps plus the part of the step under way that its inner phases have done. Runtimes
give no hint how long a step takes, so the percentage is of steps, not of time; it never goes back.
"""

from __future__ import annotations

import threading


class _Phase:
    def __init__(self, parent: str | None, steps: int) -> None:
        self.parent = parent
        self.steps = max(1, steps)
        self.done = 0


class BuildSteps:
    """The phases under way. Builders report from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._percent = 0.0
        self.phase = "beginning"

    @property
    def percent(self) -> float:
        """How much of the steps is done, at most 99: the last is to write the engine down."""
        return self._percent

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, within another one or on its own."""
        with self._lock:
            self._phases[name] = _Phase(parent, steps)
            self.phase = name

    def step(self, name: str, step: int) -> None:
        """Step number `step` of a phase is done."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = step + 1
            self._look()

    def finish(self, name: str) -> None:
        """A phase is over."""
        with self._lock:
            ended = self._phases.pop(name, None)
            if ended is not None and ended.parent in self._phases:
                self.phase = ended.parent

    def _look(self) -> None:
        roots = [name for name, one in self._phases.items() if one.parent not in self._phases]
        share = max((self._share(name) for name in roots), default=0.0)
        self._percent = max(self._percent, min(99.0, round(100 * share, 1)))

    def _share(self, name: str) -> float:
        phase = self._phases[name]
        inner = [other for other, one in self._phases.items() if one.parent == name]
        under_way = max((self._share(other) for other in inner if other != name), default=0.0)
        return min(1.0, (phase.done + under_way) / phase.steps)
