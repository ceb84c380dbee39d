"""What is at hand of the engines that a bundle needs on one rung: its own, and those of the cache.

A shelf is made for a host that somebody has looked at, since an engine's key has its GPU and its
library in it. An engine that the bundle brings along is taken when it has that very key; bundles
that bring engines for this rung, but none for this host, are told so before anything is built.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from superbrain.deploy.child import ChildError
from superbrain.domain.carried import UNFIT, fitting, misfit
from superbrain.domain.engine import EngineFile, ProfileError, engine_key
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from pathlib import Path

    from superbrain.bundle.engine_cache import EngineCache
    from superbrain.deploy.crew import Bringup
    from superbrain.domain.engine import EngineHost, EngineKey
    from superbrain.domain.manifest import CarriedEngine

log = logging.getLogger(__name__)


class CarriedUnfit(ChildError):
    """An engine that the bundle brings along is not for this host, or failed in a worker."""


class Shelf:
    """The engines of one bundle on one rung, by their keys on one host.

    Args:
        cache: where engines are kept.
        guard: lets one at a time look into the cache or write to it.
        bringup: whose engines; `bringup.carried` has those of the bundle that may be used.
        host: the library and GPU they must be for.
        flags: names of the builder flags that the rung stands for.
        workspace_mib: what a layer may use while it runs.

    Raises:
        ChildError: no profile can be made of a graph's bounds.
        CarriedUnfit: the bundle brings engines for this rung, but none for this host.
    """

    def __init__(
        self,
        cache: EngineCache,
        guard: asyncio.Lock,
        bringup: Bringup,
        host: EngineHost,
        flags: list[str],
        workspace_mib: int,
    ) -> None:
        self.host = host
        self._cache = cache
        self._guard = guard
        self._bringup = bringup
        manifest, rung = bringup.manifest, bringup.rung
        try:
            self.keys = {
                name: engine_key(manifest, graph, rung, host, flags, workspace_mib)
                for name, graph in manifest.graphs.items()
            }
        except ProfileError as error:
            raise ChildError("ProfileError", error.message, mend=error.mend) from error
        self._carried = {name: self._fitting(name, key) for name, key in self.keys.items()}

    async def all(self) -> tuple[EngineFile, ...] | None:
        """Give the engines of all graphs; None when one of them has to be built."""
        missing = (
            self._carried[name] is None and not self._cache.holds(key)
            for name, key in self.keys.items()
        )
        if any(missing):
            return None
        found = [await self.take(name, key) for name, key in self.keys.items()]
        at_hand = tuple(one for one in found if one is not None)
        return at_hand if len(at_hand) == len(found) else None

    async def take(self, name: str, key: EngineKey) -> EngineFile | None:
        """Give the engine of a graph, from the bundle or from the cache; None for neither."""
        carried = self._carried[name]
        if carried is not None:
            return self._from_bundle(name, carried)
        async with self._guard:
            held = self._cache.holds(key)
            record = await asyncio.to_thread(self._cache.look_up, key)
        if record is None:
            if held:
                event(log, Event.ENGINE_DAMAGED, logging.WARNING, **self._of(name, key))
            return None
        then, now = record.host, self.host
        same = (then.driver, then.cuda) == (now.driver, now.cuda)
        changed = "" if same else f"driver {then.driver}, CUDA {then.cuda}: proven anew"
        event(log, Event.ENGINE_REUSED, **self._of(name, key), built_with=changed)
        return self._file(name, str(self._cache.path(key)), record.sha256)

    async def put(self, name: str, key: EngineKey, built: Path, seconds: float) -> EngineFile:
        """Copy an engine that was built into the cache."""
        async with self._guard:
            record = await asyncio.to_thread(self._cache.put, key, built, self.host, seconds)
        event(log, Event.ENGINE_BUILT, **self._of(name, key), seconds=seconds)
        return self._file(name, str(self._cache.path(key)), record.sha256)

    def _fitting(self, name: str, key: EngineKey) -> CarriedEngine | None:
        found = fitting(self._bringup.carried, name, key)
        why = "" if found is not None else misfit(self._bringup.carried, name, key)
        if why:
            raise CarriedUnfit(UNFIT, why, mend="It is built here; nothing needs to be done")
        return found

    def _from_bundle(self, name: str, carried: CarriedEngine) -> EngineFile:
        """Name a file of the store, and the bytes that its signers vouch for."""
        files = self._bringup.manifest.files
        (sha256,) = (entry.sha256 for entry in files if entry.path == carried.path)
        event(log, Event.ENGINE_CARRIED, **self._of(name, carried.key), path=carried.path)
        return self._file(name, str(self._bringup.bundle_path / carried.path), sha256)

    def _of(self, name: str, key: EngineKey) -> dict[str, Any]:
        """Say which engine a log line is about."""
        return {"deployment": self._bringup.deployment_id, "graph": name, "key": key.digest}

    def _file(self, name: str, path: str, sha256: str) -> EngineFile:
        return EngineFile(name, path, sha256, self.host.gpu, self.host.version)
