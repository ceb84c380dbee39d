"""The first stages of a deployment's life: from a file in the inbox to a bundle in the store.

As every stage, each of them takes a deployment and gives what happened; foreign failures become
events with a reason here. What is the bundle's fault is Refused, what is this host's StageFailed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from superbrain.bundle.archive import open_bundle
from superbrain.deploy.dropped import Content
from superbrain.deploy.step_times import concerns
from superbrain.deploy.targets import check_targets
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, Reason
from superbrain.domain.errors import BundleError, Incomplete, StoreError, TrustUnusable
from superbrain.domain.trust import check_policy
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from superbrain.bundle.store import Store
    from superbrain.deploy.inbox import Inbox
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.trust_keeper import TrustKeeper
    from superbrain.domain.manifest import Manifest

log = logging.getLogger(__name__)

MAX_LOOKS = 10  # at a file that settles and is written to again
MAX_WAITS = 3600
WAIT_S = 1.0


class Progress(msgspec.Struct, frozen=True):
    """What a stage is doing right now; `percent` is None where nobody can tell."""

    detail: str
    percent: float | None = None


class Intake:
    """Takes bundles in.

    Args:
        keeper: knows the trust that counts now, and the time by which dates are judged.

    Attributes:
        trust: gives the trust that counts now.
        progress: what is being done for each deployment, by its id.
        gives_way: what memory would become free for a bundle, in bytes, if room were made for it.
    """

    def __init__(
        self,
        journal: Journal,
        store: Store,
        inbox: Inbox,
        keeper: TrustKeeper,
    ) -> None:
        self._journal = journal
        self._store = store
        self._inbox = inbox
        self.trust = keeper.trust
        self._clock = keeper.clock
        self.progress: dict[int, Progress] = {}
        self.gives_way: Callable[[Manifest], int] = lambda _manifest: 0

    def explain(self, source: str, reason: Reason) -> None:
        """Say beside the dropped file why its bundle was rejected."""
        with contextlib.suppress(OSError):
            self._inbox.explain(Path(source).name, reason)

    async def await_file(self, deployment: Deployment) -> life.Event:
        """Wait until the dropped file is complete; it may be in the store already."""
        if self._inbox.holds(deployment.source) or deployment.digest in self._store.digests():
            return life.Settled()
        return life.Abandoned(_gone(deployment))

    async def take_in(self, deployment: Deployment) -> life.Event:
        """Copy the dropped file into the store, hashing every byte.

        What is found in a file that is still being written is not held against it: it is looked at
        again once it has been left alone, and left to a later deployment if it never is.
        """
        try:
            for _ in range(MAX_LOOKS):
                happened = await self._look(deployment)
                if happened is not None:
                    return happened
                self.progress[deployment.id] = Progress("waiting until nobody writes to the file")
                if not await self._left_alone(Path(deployment.source)):
                    break
            return life.Abandoned(_never_left_alone(deployment))
        finally:
            self.progress.pop(deployment.id, None)

    async def _left_alone(self, path: Path) -> bool:
        """Wait until a file has settled; false when it does not."""
        for _ in range(MAX_WAITS):
            if self._inbox.settled(path):
                return True
            await asyncio.sleep(WAIT_S)
        return False

    async def _look(self, deployment: Deployment) -> life.Event | None:
        """Take the file in as it is now; None when that says nothing yet."""
        path = Path(deployment.source)
        read: Content | None = None
        try:
            if not self._inbox.holds(deployment.source):
                return await self._take_from_store(deployment)
            with self._inbox.open(path) as file:
                read = Content.of(os.fstat(file.fileno()))
                return await self._receive(deployment, path, file, read)
        except FileNotFoundError:
            return life.Abandoned(_gone(deployment))
        except (StoreError, TrustUnusable) as error:  # this host's fault, not the bundle's
            return life.StageFailed(Reason(error.reason, error.message, error.mend))
        except Incomplete:  # it is being written again; the inbox waits until it is whole
            return life.Abandoned(_gone(deployment))
        except BundleError as error:
            return self._refuse(deployment, path, error, read)
        except OSError as error:
            return life.StageFailed(Reason("READ_FAILED", f"{path.name}: {error}"))

    async def _receive(
        self, deployment: Deployment, path: Path, file: BinaryIO, content: Content
    ) -> life.Event:
        def show(done: int, total: int) -> None:
            percent = 100.0 * done / max(total, 1)
            self.progress[deployment.id] = Progress("copying into the store", percent)

        verified = await asyncio.to_thread(open_bundle, file, self.trust())
        if verified.digest != deployment.digest:
            return life.Abandoned(_gone(deployment))
        self._check_policy(deployment, verified.manifest)
        check_targets(verified.manifest, self.gives_way(verified.manifest))
        await asyncio.to_thread(self._store.receive, file, verified, show)
        self._journal.accept(deployment, list(verified.signers), dt.datetime.now(dt.UTC))
        self._clock.believe(verified.manifest.created)
        self._inbox.taken(path, content)
        event(
            log,
            Event.BUNDLE_TAKEN,
            file=path.name,
            digest=deployment.digest,
            **concerns(deployment),
        )
        return life.Trusted()

    async def _take_from_store(self, deployment: Deployment) -> life.Event:
        """Take a bundle that is in the store already: an operator's retry, or after a kill.

        Signatures are checked again, so a key or bundle revoked meanwhile counts. Only an operator
        may go below the sequence floor; below the security floor nobody may.
        """
        if deployment.digest not in self._store.digests():
            return life.Abandoned(_gone(deployment))
        self._store.verify(deployment.digest, self.trust())
        manifest = await asyncio.to_thread(self._store.rehash, deployment.digest)
        self._check_security_floor(deployment)
        if deployment.origin == "inbox":
            self._check_policy(deployment, manifest)
        check_targets(manifest, self.gives_way(manifest))
        return life.Trusted()

    def _check_policy(self, deployment: Deployment, manifest: Manifest) -> None:
        self._check_security_floor(deployment)
        floor = self._journal.floor(deployment.name)
        time = self._clock.time()
        for note in check_policy(manifest, deployment.digest, floor.sequence, floor.digest, time):
            log.warning("%s %s: %s", deployment.name, deployment.version, note)

    def _check_security_floor(self, wanted: Deployment) -> None:
        self.trust().check_security_floor(wanted.name, wanted.version, wanted.sequence)

    def _refuse(
        self, deployment: Deployment, path: Path, error: BundleError, read: Content | None
    ) -> life.Event | None:
        """Refuse for good what was read, unless the file is still being written."""
        reason = Reason(error.reason, error.message, error.mend)
        if self._inbox.holds(deployment.source):
            if not self._inbox.settled(path, read):
                return None
            self._inbox.refuse(path, reason)
        return life.Refused(reason)


def _gone(deployment: Deployment) -> Reason:
    name = Path(deployment.source).name
    message = f"{name} went away or became another bundle before it was copied"
    return Reason("FILE_GONE", message, "Drop it again")


def _never_left_alone(deployment: Deployment) -> Reason:
    name = Path(deployment.source).name
    message = f"{name}: expected a file that is left alone, found one that changes all the time"
    return Reason("FILE_NOT_SETTLED", message, "End what writes to it, and drop it again")
