"""The gateway's orders: move a model's traffic, forget a model. One at a time, never waiting.

A switch is two conditions and a flip. The lanes that leave must have no answer left to give: they
are read to their end, so that nobody sees the old version after somebody has seen the new one. The
lanes that join must have greeted. Meanwhile the loop goes on, and the model's requests wait. Who
does not meet the conditions within `PATIENCE_NS` is left behind.

A switch may be prepared: then its lanes have joined before, and nobody is asked when the last of
those that leave has ended, having said GOODBYE. No request waits for the daemon to hear of that.
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

Order = ctl.Route | ctl.Prepare | ctl.Unroute


class Switch:
    """A switch under way.

    Attributes:
        route: of the model.
        becomes: what holds for it then; None: it is forgotten.
        leaving: lanes on which it is answered no more.
        joining: lanes on which it is answered then.
        troubles: what kept lanes from joining.
        deadline_ns: who has not left or joined by then is left behind.
    """

    def __init__(self, route: ModelRoute[GatewayLane], becomes: ctl.Route | None) -> None:
        self.route = route
        self.becomes = becomes
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


class Preparation(Switch):
    """A switch of which nothing but the joining is under way."""

    becomes: ctl.Route

    @property
    def due(self) -> bool:
        """Whether there are lanes that leave, and all have ended with GOODBYE."""
        leaving = self.leaving
        return bool(leaving) and all(slot.link.ended and slot.said_goodbye for slot in leaving)


class Switching:
    """Carries out orders in the order they came."""

    def __init__(self, traffic: Traffic, reply: Callable[[ctl.Message], None]) -> None:
        self._traffic = traffic
        self._reply = reply
        self._orders: deque[Order] = deque()
        self._current: Switch | None = None
        self._prepared: dict[str, Preparation] = {}  # by model

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
        for model, switch in list(self._prepared.items()):
            if switch.due:
                del self._prepared[model]
                self._flip(switch.route, switch.becomes, switch.joining)
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
        if isinstance(order, ctl.Prepare):
            return self._begin_preparation(order.route)
        route = self._traffic.directory.enter(order)
        switch = Switch(route, order)
        wanted = list(order.lanes)
        for slot in route.slots:
            stays = slot.address in wanted and slot.deployment_id == order.deployment_id
            if stays and not slot.retiring:
                wanted.remove(slot.address)
            else:
                switch.leaving.append(slot)
        for slot in self._unprepare(order.model):
            if slot.address in wanted and slot.deployment_id == order.deployment_id:
                wanted.remove(slot.address)
                switch.joining.append(slot)
            else:
                self._traffic.end_lane(slot, died=False)
        for address in wanted:
            self._join(switch, address, order.deployment_id)
        _retire(switch.leaving)
        return switch

    def _begin_preparation(self, order: ctl.Route) -> Switch:
        """Let lanes join for which nothing leaves yet."""
        for slot in self._unprepare(order.model):
            self._traffic.end_lane(slot, died=False)
        switch = Preparation(self._traffic.directory.enter(order), order)
        for address in order.lanes:
            self._join(switch, address, order.deployment_id)
        return switch

    def _unprepare(self, model: str) -> list[GatewayLane]:
        """Give up what was prepared and has not come about; give its lanes."""
        switch = self._prepared.pop(model, None)
        return [] if switch is None else [slot for slot in switch.joining if not slot.link.ended]

    def _begin_unroute(self, order: ctl.Unroute) -> Switch | None:
        try:
            route = self._traffic.directory.find(order.model)
        except NotFound:
            self._reply(ctl.Done())
            return None
        for slot in self._unprepare(order.model):
            self._traffic.end_lane(slot, died=False)
        switch = Switch(route, None)
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
        if switch.becomes is None:
            self._forget(switch.route)
        elif isinstance(switch, Preparation):
            switch.leaving = list(switch.route.slots)
            self._prepared[switch.route.name] = switch
        else:
            self._flip(switch.route, switch.becomes, switch.joining)
        if switch.troubles:
            self._reply(ctl.Failed(Unavailable.code, "; ".join(switch.troubles)))
        else:
            self._reply(ctl.Done())

    def _flip(
        self, route: ModelRoute[GatewayLane], order: ctl.Route, joining: list[GatewayLane]
    ) -> None:
        self._traffic.unsettle()
        rejected = route.flip(order)
        route.slots.extend(slot for slot in joining if slot.ready)
        for request, error in rejected:
            self._traffic.fail(route, request, error)
        self._traffic.pump(route)

    def _forget(self, route: ModelRoute[GatewayLane]) -> None:
        self._traffic.directory.remove(route.name)
        error = self._traffic.directory.unknown(route.name)
        for request in route.waiting.clear():
            self._traffic.fail(route, request, error)


def _retire(slots: list[GatewayLane]) -> None:
    for slot in slots:
        slot.retiring = True
