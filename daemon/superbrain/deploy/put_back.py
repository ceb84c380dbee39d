"""Putting back what the store has lost: a bundle that is live by the journal is dropped once more.

The store's copy of what serves may be damaged, or gone after a restore without bundles. Then the
same file in the inbox, verified like any other, takes its place, and recovery is told to try again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from superbrain.domain.errors import BundleError
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.bundle.store import Store
    from superbrain.deploy.inbox import Complete, Inbox
    from superbrain.domain.deployment import Reason

log = logging.getLogger(__name__)

LOST: Final = frozenset({"STORE_DAMAGED", "STORE_MISSING"})


class PutBack:
    """Takes dropped bundles for which a model waits. `on_done` is called when one is back."""

    def __init__(self, store: Store, inbox: Inbox) -> None:
        self._store = store
        self._inbox = inbox
        self._under_way: set[str] = set()
        self.on_done: Callable[[], None] = lambda: None

    def wanted(self, digest: str, fault: Reason | None) -> bool:
        """Whether a model that should serve this bundle cannot, because the store has lost it."""
        return digest in self._under_way or (fault is not None and fault.code in LOST)

    async def take(self, arrival: Complete) -> None:
        """Copy the bundle into the store; what the store has of it is replaced."""
        digest = arrival.verified.digest
        if digest in self._under_way:
            return
        self._under_way.add(digest)
        try:
            with self._inbox.open(arrival.path) as file:
                await asyncio.to_thread(self._store.receive, file, arrival.verified)
        except (BundleError, OSError) as error:  # the file stays; the next look tries again
            event(log, Event.TASK_FAILED, logging.ERROR, str(error), file=arrival.path.name)
        else:
            event(log, Event.BUNDLE_TAKEN, file=arrival.path.name, digest=digest)
            self._inbox.taken(arrival.path, arrival.content)
            self.on_done()
        finally:
            self._under_way.discard(digest)
