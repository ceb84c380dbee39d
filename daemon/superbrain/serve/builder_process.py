"""The builder's process: it makes the engines of one bundle for one rung, and then it is gone.

    python -I -m superbrain.serve.builder_process --ctl-fd N

Native code parses a graph and compiles it here, for minutes, with all the memory it wants; it may
crash, hang or be ended at any instant, and nothing else notices. The process takes the processor
only when nobody else wants it, and closes a sandbox around itself before the runtime is imported:
it reads the bundle and writes its scratch folder.

The control thread reads the daemon's channel, whose end ends the process; the main thread builds, a
third one tells how far it is.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from superbrain.domain import ctl
from superbrain.domain.ctl_build import (
    ENGINE_SUFFIX,
    MEASURED,
    Build,
    BuildProgress,
    Built,
    Survey,
    Surveyed,
    ToBuilder,
)
from superbrain.domain.rungs import graph_file, wrong_form
from superbrain.domain.sandbox import Sandbox
from superbrain.host import scheduling
from superbrain.host.sandbox import SandboxError, confine
from superbrain.serve import child
from superbrain.serve.ctl_channel import CtlChannel
from superbrain.wire.errors import SuperbrainError
from superbrain.wire.sentences import sentence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from superbrain.domain.manifest import Manifest

    Order = Survey | Build

TELL_EVERY_S: Final = 0.2


class OrderRefused(SuperbrainError):
    """The daemon gave an order out of turn."""


class Builder:
    """Carries out the daemon's orders, one after the other."""

    def __init__(self, channel: CtlChannel[Any]) -> None:
        self._channel = channel
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._survey: Survey | None = None
        self._manifest: Manifest | None = None
        self._sandbox = Sandbox()

    def run(self) -> NoReturn:
        """Work until the daemon is gone."""
        first, *more = self._first_orders()
        if isinstance(first, Survey):  # while there is one thread, as the sandbox demands
            self._confine(first)
        threading.Thread(target=self._listen, name="control", daemon=True).start()
        for order in (first, *more):
            self._orders.put(order)
        while True:
            self._carry_out(self._orders.get())

    def _first_orders(self) -> list[Order]:
        while True:
            if found := self._channel.listen(wait=True):
                return found

    def _confine(self, order: Survey) -> None:
        if order.priority == "idle":
            scheduling.stand_back()
        try:
            self._sandbox = _close_sandbox(order)
        except SandboxError as error:
            self._channel.send(_failure(order, error))
            child.end(1)

    def _listen(self) -> NoReturn:
        while True:
            for message in self._channel.listen(wait=True):
                self._orders.put(message)

    def _carry_out(self, order: Order) -> None:
        reply: ctl.Message
        try:
            reply = self._look(order) if isinstance(order, Survey) else self._build(order)
        except Exception as error:  # noqa: BLE001 - becomes Failed, which the daemon acts on
            reply = _failure(order, error)
        self._channel.send(reply)

    def _look(self, order: Survey) -> Surveyed:
        if self._survey is not None:
            raise OrderRefused("expected one Survey per builder, found a second one")
        # Not above: numpy starts threads, and all threads must have been started inside.
        from superbrain.bundle.store import stored_manifest
        from superbrain.engines.tensorrt_flavour import flavour_of, recipe
        from superbrain.engines.tensorrt_survey import survey

        self._manifest = stored_manifest(Path(order.bundle_path), order.manifest_sha256)
        self._survey = order
        flavour = flavour_of(order.rung)
        found = survey(flavour)
        flags: list[str] = []
        if not found.no_library:
            flags = recipe(flavour, found.host.version, order.rung.partition(":")[2]).names
        return Surveyed(
            host=found.host,
            flags=flags,
            keeps_timing=flavour.keeps_timing,
            unavailable=found.unavailable(order.rung),
            mend=found.mend,
            sandbox=self._sandbox,
        )

    def _build(self, order: Build) -> Built:
        if self._survey is None or self._manifest is None:
            raise OrderRefused("expected Survey before Build, found nothing looked at")
        from superbrain.engines.onnx_files import check_external_files
        from superbrain.engines.port import BuildFailed
        from superbrain.engines.tensorrt_build import BuildOrder, build
        from superbrain.engines.tensorrt_flavour import flavour_of

        folder, scratch = Path(self._survey.bundle_path), Path(self._survey.scratch_path)
        graph = self._manifest.graphs[order.graph]
        file = graph_file(graph, self._survey.rung)
        if wrong := wrong_form(file, self._survey.rung):
            raise BuildFailed(wrong, mend="torchscript:… runs TorchScript, all other rungs ONNX")
        check_external_files(folder, file, {entry.path for entry in self._manifest.files})
        wanted = BuildOrder(
            path=folder / file,
            graph=graph,
            precision=self._survey.rung.partition(":")[2],
            profiles=order.profiles,
            workspace_mib=order.workspace_mib,
            limit_s=order.time_limit_s,
            timing_cache=(scratch / MEASURED).read_bytes() if order.measured else b"",
        )
        with _Teller(self._channel, order.graph) as teller:
            made = build(flavour_of(self._survey.rung), wanted, teller.note)
            teller.note("writing", 99.0)
            (scratch / f"{order.graph}{ENGINE_SUFFIX}").write_bytes(made.engine)
            if made.timing_cache:
                (scratch / MEASURED).write_bytes(made.timing_cache)
        return Built(teller.elapsed_s, bool(made.timing_cache))


class _Teller:
    """Tells the daemon a few times a second how far a build is, from a thread of its own.

    A step of a build may take minutes without a word; the seconds go on all the same. Where the
    kernel gives no thread any more, the engine is built without a word.
    """

    def __init__(self, channel: CtlChannel[Any], graph: str) -> None:
        self._channel = channel
        self._graph = graph
        self._began = time.monotonic()
        self._now = ("beginning", 0.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def note(self, phase: str, percent: float) -> None:
        """Take note of how far it is; from any thread."""
        self._now = (phase, percent)

    @property
    def elapsed_s(self) -> float:
        """How long it has taken so far."""
        return round(time.monotonic() - self._began, 3)

    def _run(self) -> None:
        while not self._ended.wait(TELL_EVERY_S):
            phase, percent = self._now
            self._channel.send(BuildProgress(self._graph, phase, percent, self.elapsed_s))

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError as error:
            child.log("build_untold", graph=self._graph, error=str(error))
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():  # nobody can wait for one that never began
            self._thread.join()


def _close_sandbox(order: Survey) -> Sandbox:
    sandbox = confine(
        order.sandbox,
        bundle=Path(order.bundle_path),
        scratch=Path(order.scratch_path),
        gpu=True,
    )
    lacking = "; ".join(sandbox.missing)
    child.log("builder_confined", level=sandbox.level, missing=lacking)
    return sandbox


def _failure(order: Order, error: Exception) -> ctl.Failed:
    child.log("order_failed", order=type(order).__name__, error=sentence(repr(error)))
    if not isinstance(error, SuperbrainError):
        return ctl.Failed(type(error).__name__, f"{type(order).__name__} raised {error!r}")
    code = getattr(error, "code", type(error).__name__)
    at_fault = bool(getattr(error, "bundle_at_fault", False))
    return ctl.Failed(code, error.message, error.mend, at_fault)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the process."""
    parser = child.argument_parser("superbrain-builder", "Build the engines of one bundle.")
    options = parser.parse_args(arguments)
    channel: CtlChannel[Any] = CtlChannel(
        child.adopt(options.ctl_fd), msgspec.msgpack.Decoder(ToBuilder)
    )
    Builder(channel).run()


if __name__ == "__main__":
    main(sys.argv[1:])
