"""The workshop: brings the engines that a rung needs, from bundle, cache or a builder.

Most rungs need none: their runtime opens the ONNX file in the worker. For the others somebody must
have looked at the host, because the key of an engine has the runtime's version and the GPU in it.
What builders have found is remembered for as long as it holds; when all engines are at hand by it,
no builder is started. Otherwise a builder process looks first, and builds what is missing. Whatever
is taken is proven in the worker like everything else, so a driver or CUDA that has changed since an
engine was built makes no difference to what may serve; it is logged.

A builder that is not needed any more, because a newer bundle has come or the daemon ends, is
killed: it has written nothing but its scratch folder, which goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from superbrain.deploy.child import Child, ChildError
from superbrain.deploy.confinement import Confined, begin_with_scratch, watch
from superbrain.deploy.shelf import Shelf
from superbrain.deploy.surveys import KnownHost
from superbrain.domain.ctl_build import (
    ENGINE_SUFFIX,
    MEASURED,
    Build,
    BuildProgress,
    Built,
    Survey,
    Surveyed,
)
from superbrain.domain.engine import EngineFile, EngineKey, timing_key
from superbrain.engines.registry import built_runtime_for
from superbrain.host.events import Event
from superbrain.host.files import write_atomically
from superbrain.host.logs import event
from superbrain.host.usage import RunClock, waited_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from superbrain.bundle.engine_cache import EngineCache
    from superbrain.deploy.crew import Bringup, Workplace
    from superbrain.deploy.surveys import Surveys
    from superbrain.domain.ctl import Message
    from superbrain.domain.engine import BuilderPolicy

    Show = Callable[[str, float | None], None]

log = logging.getLogger(__name__)

BUILDER_MODULE: Final = "superbrain.serve.builder_process"
SURVEY_TIMEOUT_S: Final = 120.0
GRACE_S = 60.0  # a step of a build that is told to stop may still take a while
_STARVED: Final = (
    0.5  # of its time a builder waited for a processor: its limit is not what to raise
)
_TOO_LONG: Final = {"BuildTimedOut", "TIMED_OUT"}
_LIMITS: Final = {"MEMORY_LIMIT": "memory_mib", "SCRATCH_LIMIT": "cache_mib"}
_builder_ids = itertools.count(1)


class Workshop:
    """Makes engines, one after the other: builders measure, and two would measure one another.

    Args:
        cache: where engines are kept.
        policy: limits of a builder.
        workplace: where workers and builders live, and what holds them.
        in_use: gives the paths of engines that must stay in the cache.
        surveys: remembers what builders have found.
    """

    def __init__(
        self,
        cache: EngineCache,
        policy: BuilderPolicy,
        workplace: Workplace,
        in_use: Callable[[], set[str]],
        surveys: Surveys,
    ) -> None:
        self.workplace = workplace
        self._cache = cache
        self._policy = policy
        self._in_use = in_use
        self._surveys = surveys
        self._bench = asyncio.Lock()
        self._guard = asyncio.Lock()

    async def engines(self, bringup: Bringup, show: Show) -> tuple[EngineFile, ...]:
        """Give the engines of all graphs of a bundle on its rung; none where it needs none.

        Args:
            bringup: what is to be brought up.
            show: told what is going on, and how far it is.

        Raises:
            CarriedUnfit: the bundle brings engines for this rung, but none for this host.
            ChildError: this host cannot run the rung, or the builder failed, with its last error.
            BundleError: the cache cannot be read or written.
        """
        runtime = built_runtime_for(bringup.rung)
        if runtime is None:
            return ()
        outlook = await asyncio.to_thread(runtime.outlook)
        at_hand = await self._at_hand(bringup, outlook)
        if at_hand is not None:
            return at_hand
        if self._bench.locked():
            show("waiting for another build to end", None)
        async with self._bench, self._builder(bringup) as builder:
            visit = _Visit(self._cache, self._policy, bringup, builder, show)
            survey = await visit.look()
            found = KnownHost(outlook, survey.host, survey.flags)
            self._surveys.keep(bringup.rung, found)
            engines = await visit.engines(survey, self._shelf(bringup, found))
        await self._trim()
        return engines

    async def refused(self, bringup: Bringup) -> None:
        """Keep cached engines no longer that a worker's runtime refused: they are built anew."""
        for engine in bringup.engines:
            async with self._guard:
                mine = await asyncio.to_thread(self._cache.discard_file, Path(engine.path))
            if mine:
                what = engine.path
                event(log, Event.ENGINE_DAMAGED, logging.WARNING, graph=engine.graph, path=what)

    def doubt(self, rung: str) -> None:
        """Have a builder look at the host before the rung's engines are taken the next time."""
        self._surveys.forget(rung)

    async def _at_hand(self, bringup: Bringup, outlook: str) -> tuple[EngineFile, ...] | None:
        """Give the engines if none has to be built by what is known of this host."""
        known = self._surveys.recall(bringup.rung, outlook)
        return None if known is None else await self._shelf(bringup, known).all()

    def _shelf(self, bringup: Bringup, known: KnownHost) -> Shelf:
        workspace_mib = self._policy.workspace_mib
        return Shelf(self._cache, self._guard, bringup, known.host, known.flags, workspace_mib)

    async def _trim(self) -> None:
        async with self._guard:
            gone = await asyncio.to_thread(self._cache.trim, self._in_use(), time.time())
        for key in gone:
            event(log, Event.ENGINE_REMOVED, key=key)

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
        child = await begin_with_scratch(
            name,
            scratch,
            partial(Child.spawn, name, BUILDER_MODULE, deployment=bringup.deployment_id),
        )
        confined = Confined(child, limits, scratch, RunClock(child.pid).has_run)
        watching = asyncio.create_task(watch(confined, place.rounds))
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
            if error.code not in _LIMITS:
                raise
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
        self._queue = _Queue(builder.child.pid)
        builder.child.on_message = self._heard

    async def look(self) -> Surveyed:
        """Look at the host.

        Raises:
            ChildError: it cannot run the rung, or the builder failed.
        """
        self._show(f"looking at what {self._bringup.rung} needs", None)
        survey = await self._builder.child.order(self._builder.survey, Surveyed, SURVEY_TIMEOUT_S)
        if survey.unavailable:
            message = f"{self._bringup.rung}: {survey.unavailable}"
            raise ChildError("RungUnavailable", message, mend=survey.mend)
        return survey

    async def engines(self, survey: Surveyed, shelf: Shelf) -> tuple[EngineFile, ...]:
        """Take or build one engine after the other."""
        return tuple(
            [await self._engine(survey, shelf, name, shelf.keys[name]) for name in shelf.keys]
        )

    async def _engine(
        self, survey: Surveyed, shelf: Shelf, name: str, key: EngineKey
    ) -> EngineFile:
        taken = await shelf.take(name, key)
        if taken is not None:
            return taken
        seconds = await self._build(name, key, survey)
        return await shelf.put(name, key, self._builder.scratch / f"{name}{ENGINE_SUFFIX}", seconds)

    async def _build(self, name: str, key: EngineKey, survey: Surveyed) -> float:
        """Have one engine built, beginning with what earlier builds have measured."""
        timing = timing_key(survey.host)
        measured = survey.keeps_timing and await asyncio.to_thread(self._lay_out, timing)
        limit_s = self._policy.time_limit_s
        order = Build(name, key.profiles, key.workspace_mib, limit_s, measured)
        mend = "Raise builder.time_limit_s, or narrow the bounds of the graph's sizes"
        self._queue = _Queue(self._builder.child.pid)
        try:
            built = await self._builder.child.order(order, Built, limit_s + GRACE_S, mend)
        except ChildError as error:
            if measured:  # it may be what broke the builder: never twice
                await asyncio.to_thread(self._cache.discard, timing)
            if error.code in _TOO_LONG and self._queue.starved(limit_s):
                raise self._starved(error, limit_s) from error
            raise
        if built.measured:
            path = self._builder.scratch / MEASURED
            await asyncio.to_thread(self._cache.put, timing, path, survey.host, 0.0)
        return built.seconds

    def _lay_out(self, timing: EngineKey) -> bool:
        """Put what was measured into the scratch folder; whether it is there.

        The builder may have put anything in its place, a link to any other file too.
        """
        if self._cache.look_up(timing) is None:
            return False
        try:
            write_atomically(
                self._builder.scratch / MEASURED, self._cache.path(timing).read_bytes()
            )
        except OSError as error:
            log.warning("%s: what was measured is not used: %s", self._title, error)
            return False
        return True

    def _heard(self, message: Message) -> None:
        if isinstance(message, BuildProgress):
            graph = f" of {message.graph!r}" if len(self._bringup.manifest.graphs) > 1 else ""
            detail = f"{self._title}{graph}: {message.phase}, {message.elapsed_s:.0f} s"
            self._queue.look()
            if self._queue.starved(message.elapsed_s):
                detail += f", {self._queue.waited_s:.0f} of them waiting for a processor"
            self._show(detail, message.percent)

    def _starved(self, error: ChildError, limit_s: float) -> ChildError:
        mend = (
            f"It waited {self._queue.waited_s:.0f} of {limit_s:.0f} s for a processor, since "
            'others have them: set builder.priority = "normal", or raise builder.time_limit_s'
        )
        return ChildError(error.code, error.message, mend=mend)


class _Queue:
    """How long a builder has waited for a processor since its build began.

    At low priority it has what nobody else wants, which may be next to nothing.
    """

    def __init__(self, pid: int) -> None:
        self.waited_s = 0.0
        self._pid = pid
        self._before_s = waited_s(pid)

    def look(self) -> None:
        """Take note of it; the kernel tells nothing any more of a builder that has ended."""
        self.waited_s = max(self.waited_s, waited_s(self._pid) - self._before_s)

    def starved(self, seconds: float) -> bool:
        """Whether most of `seconds` went by in waiting."""
        return self.waited_s > max(1.0, _STARVED * seconds)


def _in_builder_words(error: ChildError) -> ChildError:
    """Name the builder's own configuration key where a limit was exceeded."""
    mend = f"Raise builder.{_LIMITS[error.code]}, or leave this rung out of the ladder"
    return ChildError(error.code, error.message, mend=mend)
