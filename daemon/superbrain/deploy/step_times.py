"""How long the steps of a deployment take: told of each step when it has ended.

| step | what |
|---|---|
| verify | signatures, manifest, every byte on its way into the store |
| build | the engines of a rung, from the cache or a builder |
| load | workers open bundle, engines and pipeline |
| prove | they reproduce the golden cases |
| swap | the traffic moves over |
| roll back, drain | it moves back; what was replaced finishes |
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from superbrain.deploy.child import ChildError
from superbrain.domain import deployment as life
from superbrain.domain.errors import BundleError
from superbrain.domain.records import StepRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from superbrain.domain.deployment import Deployment

# A build has two steps, which `Stages` times itself.
_NAMES: Final[dict[type[life.Command], str]] = {
    life.TakeIn: "verify",
    life.Prove: "prove",
    life.Switch: "swap",
    life.RollBack: "roll back",
    life.Drain: "drain",
}


class StepTimes:
    """Times steps; `on_step` is given each."""

    def __init__(self) -> None:
        self.on_step: Callable[[Deployment, StepRecord], None] = lambda _deployment, _step: None

    async def timed(
        self,
        deployment: Deployment,
        command: life.Command,
        perform: Callable[[Deployment], Awaitable[life.Event | None]],
    ) -> life.Event | None:
        """Carry out a command, and tell how long it took."""
        name = _NAMES.get(type(command))
        began_ns = time.time_ns()
        happened = await perform(deployment)
        if name is not None:
            error = happened.reason.code if isinstance(happened, life.Bad) else ""
            self._tell(deployment, name, began_ns, error)
        return happened

    @contextlib.contextmanager
    def step(self, deployment: Deployment, name: str) -> Iterator[None]:
        """Time what is done within."""
        began_ns, error = time.time_ns(), ""
        try:
            yield
        except ChildError as failed:
            error = failed.code
            raise
        except BundleError as failed:
            error = failed.reason
            raise
        finally:
            self._tell(deployment, name, began_ns, error)

    def _tell(self, deployment: Deployment, name: str, began_ns: int, error: str) -> None:
        self.on_step(deployment, StepRecord(name, began_ns, time.time_ns(), error))


def concerns(deployment: Deployment) -> dict[str, Any]:
    """Give what every log line about a deployment bears."""
    named = {"model": deployment.name, "version": deployment.version}
    return {"deployment": deployment.id, **named}
