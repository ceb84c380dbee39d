"""The services of all models on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superbrain.deploy.service import ModelService

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.deploy.gateway import GatewayKeeper
    from superbrain.domain.policy import ErrorBudget


class Services:
    """The services of all models, made when they are first asked for."""

    def __init__(self, gateway: GatewayKeeper, budget: ErrorBudget) -> None:
        self._gateway = gateway
        self._budget = budget
        self._services: dict[str, ModelService] = {}
        self.on_budget_spent: Callable[[str, str], None] = lambda _name, _reason: None

    def of(self, name: str) -> ModelService:
        """Give the service of a model."""
        if name not in self._services:
            self._services[name] = ModelService(
                name, self._gateway, self._budget, self._budget_spent
            )
        return self._services[name]

    def _budget_spent(self, name: str, reason: str) -> None:
        self.on_budget_spent(name, reason)

    def all(self) -> list[ModelService]:
        """Give every service there is."""
        return list(self._services.values())
