"""The workshop: brings the engines that a rung needs, from the cache or from a builder.

Most rungs need none: their runtime opens the ONNX file in the worker. For the others a builder
process looks at the host first, because the key of an engine has the runtime's version and the GPU
in it. What the cache has under that key is taken, the rest is built. Whatever is taken from the
cache is proven in the worker like everything else, so a driver or CUDA that has changed since the
engine was built makes no difference to what may serve; it is logged.

A builder that is not needed any more, because a newer bundle has come or the daemon ends, is
killed: it has written nothing but its scratch folder, which goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from superbrain.deploy.child import Child, ChildError
from superbrain.deploy.confinement import make_scratch, watch
from superbrain.domain.ctl_build import (
    ENGINE_SUFFIX,
    MEASURED,
    Build,
    BuildProgress,
    Built,
    Survey,
    Surveyed,
)
from superbrain.domain.engine import EngineFile, EngineKey, ProfileError, engine_key, timing_key
from superbrain.engines.registry import built_runtime_for
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from superbrain.bundle.engine_cache import EngineCache
    from superbrain.deploy.crew import Bringup, Workplace
    from superbrain.domain.ctl import Message
    from superbrain.domain.engine import BuilderPolicy
    from superbrain.domain.manifest import Graph

    Show = Callable[[str, float | None], None]

log = logging.getLogger(__name__)

BUILDER_MODULE: Final = "superbrain.serve.builder_process"
SURVEY_TIMEOUT_S: Final = 120.0
GRACE_S: Final = 60.0  # a step of a build that is told to stop may still take a while
_LIMITS: Final = {"MEMORY_LIMIT": "memory_mib", "SCRATCH_LIMIT": "cache_mib"}
_builder_ids = itertools.count(1)


class Workshop:
    """Makes engines, one after the other: builders measure, and two would measure one another.

    Args:
        cache: where engines are kept.
        policy: limits of a builder.
        workplace: where workers and builders live, and what holds them.
        in_use: gives the paths of engines that must stay in the cache.
    """

    def __init__(
        self,
        cache: EngineCache,
        policy: BuilderPolicy,
        workplace: Workplace,
        in_use: Callable[[], set[str]],
    ) -> None:
        self.workplace = workplace
        self._cache = cache
        self._policy = policy
        self._in_use = in_use
        self._bench = asyncio.Lock()

    async def engines(self, bringup: Bringup, show: Show) -> tuple[EngineFile, ...]:
        """Give the engines of all graphs of a bundle on its rung; none where it needs none.

        Args:
            bringup: what is to be brought up.
            show: told what is going on, and how far it is.

        Raises:
            ChildError: this host cannot run the rung, or the builder failed, with its last error.
            BundleError: the cache cannot be read or written.
        """
        if built_runtime_for(bringup.rung) is None:
            return ()
        if self._bench.locked():
            show("waiting for another build to end", None)
        async with self._bench, self._builder(bringup) as builder:
            return await _Visit(self._cache, self._policy, bringup, builder, show).engines(
                self._in_use
            )

    async def discard(self, engines: Sequence[EngineFile]) -> None:
        """Keep engines no longer that a worker's runtime refused: the next try builds anew."""
        for engine in engines:
            event(log, Event.ENGINE_DAMAGED, logging.WARNING, graph=engine.graph, path=engine.path)
            await asyncio.to_thread(self._cache.discard_file, Path(engine.path))

    @contextlib.asynccontextmanager
    async def _builder(self, bringup: Bringup) -> AsyncIterator[_Builder]:
        """Start a builder, and leave nothing of it behind."""
        place, policy = bringup.workplace, self._policy
        limits = msgspec.structs.replace(
            place.sandbox, memory_mib=policy.memory_mib, scratch_mib=policy.cache_mib
        )
        number = next(_builder_ids)
        scratch = place.scratch_path / f"builder-{number}"
        name = f"builder {number} ({bringup.manifest.name} {bringup.manifest.version})"
        try:
            make_scratch(scratch)
        except OSError as error:
            found = f"{name} gets no scratch folder: {error}"
            raise ChildError("SPAWN_FAILED", found) from error
        child = await Child.spawn(name, BUILDER_MODULE, deployment=bringup.deployment_id)
        watching = asyncio.create_task(watch(child, limits, scratch))
        survey = Survey(
            rung=bringup.rung,
            bundle_path=str(bringup.bundle_path),
            manifest_sha256=bringup.digest,
            scratch_path=str(scratch),
            priority=policy.priority,
            sandbox=limits,
        )
        try:
            yield _Builder(child, survey, scratch)
        except ChildError as error:
            raise _in_builder_words(error) from error
        finally:
            child.kill()
            await asyncio.shield(watching)


class _Builder:
    """One builder process and its scratch folder."""

    def __init__(self, child: Child, survey: Survey, scratch: Path) -> None:
        self.child = child
        self.survey = survey
        self.scratch = scratch


class _Visit:
    """Gets the engines of one bundle with one builder."""

    def __init__(
        self,
        cache: EngineCache,
        policy: BuilderPolicy,
        bringup: Bringup,
        builder: _Builder,
        show: Show,
    ) -> None:
        self._cache = cache
        self._policy = policy
        self._bringup = bringup
        self._builder = builder
        self._show = show
        self._title = f"building for {bringup.rung}"
        builder.child.on_message = self._heard

    async def engines(self, in_use: Callable[[], set[str]]) -> tuple[EngineFile, ...]:
        """Look at the host, then take or build one engine after the other."""
        self._show(f"looking at what {self._bringup.rung} needs", None)
        child = self._builder.child
        survey = await child.order(self._builder.survey, Surveyed, SURVEY_TIMEOUT_S)
        if survey.unavailable:
            message = f"{self._bringup.rung}: {survey.unavailable}"
            raise ChildError("RungUnavailable", message, mend=survey.mend)
        engines = [
            await self._engine(name, graph, survey)
            for name, graph in self._bringup.manifest.graphs.items()
        ]
        for key in await asyncio.to_thread(self._cache.trim, in_use(), time.time()):
            event(log, Event.ENGINE_REMOVED, key=key)
        return tuple(engines)

    async def _engine(self, name: str, graph: Graph, survey: Surveyed) -> EngineFile:
        policy, manifest = self._policy, self._bringup.manifest
        host, rung = survey.host, self._bringup.rung
        try:
            key = engine_key(manifest, graph, rung, host, survey.flags, policy.workspace_mib)
        except ProfileError as error:
            raise ChildError("ProfileError", error.message, mend=error.mend) from error
        of: dict[str, Any] = {
            "deployment": self._bringup.deployment_id,
            "graph": name,
            "key": key.digest,
        }
        held = self._cache.holds(key)
        record = await asyncio.to_thread(self._cache.look_up, key)
        if record is not None:
            then, now = record.host, host
            same = (then.driver, then.cuda) == (now.driver, now.cuda)
            changed = "" if same else f"driver {then.driver}, CUDA {then.cuda}: proven anew"
            event(log, Event.ENGINE_REUSED, **of, built_with=changed)
        else:
            if held:
                event(log, Event.ENGINE_DAMAGED, logging.WARNING, **of)
            seconds = await self._build(name, key, survey)
            built = self._builder.scratch / f"{name}{ENGINE_SUFFIX}"
            record = await asyncio.to_thread(self._cache.put, key, built, host, seconds)
            event(log, Event.ENGINE_BUILT, **of, seconds=seconds)
        return EngineFile(name, str(self._cache.path(key)), record.sha256)

    async def _build(self, name: str, key: EngineKey, survey: Surveyed) -> float:
        """Have one engine built, beginning with what earlier builds have measured."""
        timing = timing_key(survey.host)
        measured = survey.keeps_timing and await asyncio.to_thread(self._lay_out, timing)
        limit_s = self._policy.time_limit_s
        order = Build(name, key.profiles, key.workspace_mib, limit_s, measured)
        mend = "Raise builder.time_limit_s, or narrow the bounds of the graph's sizes"
        try:
            built = await self._builder.child.order(order, Built, limit_s + GRACE_S, mend)
        except ChildError:
            if measured:  # it may be what broke the builder: never twice
                await asyncio.to_thread(self._cache.discard, timing)
            raise
        if built.measured:
            path = self._builder.scratch / MEASURED
            await asyncio.to_thread(self._cache.put, timing, path, survey.host, 0.0)
        return built.seconds

    def _lay_out(self, timing: EngineKey) -> bool:
        """Put what was measured into the scratch folder; whether there is any."""
        if self._cache.look_up(timing) is None:
            return False
        shutil.copyfile(self._cache.path(timing), self._builder.scratch / MEASURED)
        return True

    def _heard(self, message: Message) -> None:
        if isinstance(message, BuildProgress):
            graph = f" of {message.graph!r}" if len(self._bringup.manifest.graphs) > 1 else ""
            detail = f"{self._title}{graph}: {message.phase}, {message.elapsed_s:.0f} s"
            self._show(detail, message.percent)


def _in_builder_words(error: ChildError) -> ChildError:
    """Name the builder's own configuration key where a limit was exceeded."""
    key = _LIMITS.get(error.code)
    mend = f"Raise builder.{key}, or leave this rung out of the ladder" if key else error.mend
    return ChildError(error.code, error.message, mend=mend, bundle_at_fault=error.bundle_at_fault)
