"""The gateway's orders: move a model's traffic, forget a model. One at a time, never waiting.

A switch is two conditions and a flip. The lanes that leave must have no answer left to give: they
are read to their end, so that nobody sees the old version after somebody has seen the new one. The
lanes that join must have greeted. Meanwhile the loop goes on, and the model's requests wait. Who
does not meet the conditions within `PATIENCE_NS` is left behind.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from superbrain.domain import ctl
from superbrain.serve.admission import NEVER_NS
from superbrain.wire.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.serve.directory import ModelRoute
    from superbrain.serve.gateway_lanes import GatewayLane
    from superbrain.serve.traffic import Traffic

PATIENCE_NS = 2_000_000_000

Order = ctl.Route | ctl.Unroute


class Switch:
    """A switch under way."""

    def __init__(self, order: Order, route: ModelRoute[GatewayLane]) -> None:
        self.order = order
        self.route = route
        self.leaving: list[GatewayLane] = []
        self.joining: list[GatewayLane] = []
        self.troubles: list[str] = []
        self.deadline_ns = time.monotonic_ns() + PATIENCE_NS

    @property
    def settled(self) -> bool:
        """Whether nothing is left to wait for."""
        return all(slot.link.ended or not slot.outstanding for slot in self.leaving) and all(
            slot.link.ended or slot.window for slot in self.joining
        )


class Switching:
    """Carries out orders in the order they came."""

    def __init__(self, traffic: Traffic, reply: Callable[[ctl.Message], None]) -> None:
        self._traffic = traffic
        self._reply = reply
        self._orders: deque[Order] = deque()
        self._current: Switch | None = None

    @property
    def wake_ns(self) -> int:
        """When `advance` is due without any event; `NEVER_NS` when no switch is under way."""
        return self._current.deadline_ns if self._current else NEVER_NS

    @property
    def busy(self) -> bool:
        """Whether a switch is under way, which every answer may bring to its end."""
        return self._current is not None

    def take(self, order: Order) -> None:
        """Carry out `order` as soon as those before it are done."""
        self._orders.append(order)

    def advance(self, now_ns: int) -> None:
        """Go as far as is possible now."""
        while self._current or self._orders:
            self._traffic.unsettle()
            if self._current is None:
                self._current = self._begin(self._orders.popleft())
                continue
            if not self._current.settled and now_ns < self._current.deadline_ns:
                return
            current, self._current = self._current, None
            self._finish(current)

    def _begin(self, order: Order) -> Switch | None:
        if isinstance(order, ctl.Unroute):
            return self._begin_unroute(order)
        route = self._traffic.directory.enter(order)
        switch = Switch(order, route)
        wanted = list(order.lanes)
        for slot in route.slots:
            stays = slot.address in wanted and slot.deployment_id == order.deployment_id
            if stays and not slot.retiring:
                wanted.remove(slot.address)
            else:
                switch.leaving.append(slot)
        for address in wanted:
            self._join(switch, address, order.deployment_id)
        _retire(switch.leaving)
        return switch

    def _begin_unroute(self, order: ctl.Unroute) -> Switch | None:
        try:
            route = self._traffic.directory.find(order.model)
        except NotFound:
            self._reply(ctl.Done())
            return None
        switch = Switch(order, route)
        switch.leaving = list(route.slots)
        _retire(switch.leaving)
        return switch

    def _join(self, switch: Switch, address: ctl.LaneAddress, deployment_id: int) -> None:
        try:
            slot = self._traffic.open_lane(address, switch.route, deployment_id)
        except OSError as error:
            switch.troubles.append(f"lane {address.path}: {error}")
        else:
            switch.joining.append(slot)

    def _finish(self, switch: Switch) -> None:
        for slot in switch.leaving:
            if not slot.link.ended:
                self._traffic.end_lane(slot, died=False)
        for slot in switch.joining:
            if slot.ready:
                continue
            switch.troubles.append(f"lane {slot.address.path}: no valid greeting")
            if not slot.link.ended:
                self._traffic.end_lane(slot, died=False)
        if isinstance(switch.order, ctl.Unroute):
            self._forget(switch)
        else:
            self._flip(switch, switch.order)

    def _flip(self, switch: Switch, order: ctl.Route) -> None:
        route = switch.route
        rejected = route.flip(order)
        route.slots.extend(slot for slot in switch.joining if slot.ready)
        for request, error in rejected:
            self._traffic.fail(route, request, error)
        self._traffic.pump(route)
        if switch.troubles:
            self._reply(ctl.Failed(Unavailable.code, "; ".join(switch.troubles)))
        else:
            self._reply(ctl.Done())

    def _forget(self, switch: Switch) -> None:
        route = switch.route
        self._traffic.directory.remove(route.name)
        error = self._traffic.directory.unknown(route.name)
        for request in route.waiting.clear():
            self._traffic.fail(route, request, error)
        self._reply(ctl.Done())


def _retire(slots: list[GatewayLane]) -> None:
    for slot in slots:
        slot.retiring = True
