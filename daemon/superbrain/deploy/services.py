"""The services of all models on this host, and what concerns more than one of them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from superbrain.deploy.service import ModelService
from superbrain.domain.watch import HostLoad, blame
from superbrain.host.events import Event
from superbrain.host.load import LoadMeter
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.deploy.gateway import GatewayKeeper
    from superbrain.domain import deployment as life
    from superbrain.domain.health import Incident
    from superbrain.domain.watch import Rules


log = logging.getLogger(__name__)


class Services:
    """The services of all models, made when they are first asked for.

    Attributes:
        on_given_up: told when a model does too badly; whether another version takes its place.
        on_incident: told of every incident.
        reproofs: held while a golden case is run again, so that no two are on this host.
    """

    def __init__(self, gateway: GatewayKeeper, rules: Rules) -> None:
        self._gateway = gateway
        self._rules = rules
        self._services: dict[str, ModelService] = {}
        self._load = LoadMeter()
        self._host_load = HostLoad()
        self.reproofs = asyncio.Semaphore(1)
        self.on_given_up: Callable[[str, life.Bad], bool] = lambda _name, _why: False
        self.on_incident: Callable[[str, Incident], None] = lambda _name, _incident: None

    def of(self, name: str) -> ModelService:
        """Give the service of a model."""
        if name not in self._services:
            self._services[name] = ModelService(name, self._gateway, self._rules, self)
        return self._services[name]

    def all(self) -> list[ModelService]:
        """Give every service there is."""
        return list(self._services.values())

    def engine_paths(self) -> set[str]:
        """Give the built engines of every crew that serves or may have to again."""
        crews = [crew for service in self.all() for crew in (service.current, service.warm)]
        return {engine.path for crew in crews if crew for engine in crew.bringup.engines}

    async def check(self) -> None:
        """Refresh the figures of all, and act on what they show."""
        self._host_load = self._load.read()
        await asyncio.gather(*(self._check(service) for service in self.all()))

    async def _check(self, service: ModelService) -> None:
        """Check one; whatever is wrong with it, the others are looked at, and the host reports."""
        try:
            await service.check()
        except Exception as error:  # noqa: BLE001 - for the reason above
            message = str(error)
            event(
                log, Event.TASK_FAILED, logging.ERROR, message, exc_info=error, model=service.name
            )

    def judge_anew(self) -> None:
        """Give up once more what does too badly: what was before it may come back by now."""
        for service in self.all():
            service.judge_anew()

    # --- what a service tells and asks --------------------------------------------------------

    def given_up(self, name: str, why: life.Bad) -> bool:
        """Pass on that a model does too badly."""
        return self.on_given_up(name, why)

    def happened(self, name: str, incident: Incident) -> None:
        """Pass an incident on."""
        self.on_incident(name, incident)

    def to_blame(self, name: str) -> str:
        """Say why the host is to blame for a slow model; empty when the model is."""
        ratios = [service.watch.ratio for service in self.all() if service.name != name]
        measured = [ratio for ratio in ratios if ratio]
        return blame(measured, self._rules.watch.drift_factor, self._host_load)
