"""Moves what serves to another rung of its own ladder, without a moment in between.

As every candidate comes into service: a fresh crew proves every golden case on the rung, the change
is written down, the traffic moves between two requests. Deployment and state stay as they are.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.child import ChildError
from superbrain.domain.deployment import Deployment, State

if TYPE_CHECKING:
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.service import ModelService
    from superbrain.deploy.stages import Stages

MAY_MOVE = frozenset({State.PROBATION, State.LIVE})


class RungMove:
    """Moves deployments between rungs."""

    def __init__(self, journal: Journal, stages: Stages) -> None:
        self._journal = journal
        self._stages = stages

    async def move(self, service: ModelService, attempt: Deployment, step: str, why: str) -> None:
        """Serve a deployment on the rung that `attempt` has.

        Args:
            service: of its model.
            attempt: the deployment that serves, on the rung to move to.
            step: the name of the step in its history; the row has the rung that it left.
            why: in a sentence, for the history.

        Raises:
            ChildError, BundleError: it does not load or prove there, or serves no longer; nothing
                has changed.
        """
        crew = await self._stages.revive(attempt)

        def commit(_replaced: Deployment | None) -> Deployment:
            return self._write_down(attempt, step, why)

        try:
            await service.switch(crew, commit)
        except BaseException:
            await crew.end()
            raise

    def _write_down(self, attempt: Deployment, step: str, why: str) -> Deployment:
        current = self._journal.current(attempt.name)
        if current is None or current.id != attempt.id or current.state not in MAY_MOVE:
            raise ChildError("OVERTAKEN", f"{attempt.name} {attempt.version} serves no longer")
        after = msgspec.structs.replace(current, rung_index=attempt.rung_index)
        self._journal.record(current, step, after, dt.datetime.now(dt.UTC), why)
        return after
