"""Building an engine with TensorRT or TensorRT for RTX: from an ONNX file to a file of its own.

    built = build(RTX, order, target, watch)

Only a builder process comes here: native code parses and compiles, and may take the process with
it. These libraries answer failures with None or False and tell the reason to a logger alone, so
that is where the sentences of errors come from. Only `Builder`, never `Runtime` is used: the latter
crashes where there is no driver.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from superbrain.engines.build_progress import BuildSteps
from superbrain.engines.graph_check import FileTensor, check_graph
from superbrain.engines.port import BuildFailed, BuildTimedOut
from superbrain.engines.tensorrt_flavour import (
    DATATYPES,
    TYPES_OF,
    Flavour,
    import_library,
    recipe,
)
from superbrain.engines.tensorrt_log import collecting_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from superbrain.domain.engine import Profile
    from superbrain.domain.manifest import Graph

    Tell = Callable[[str, float], None]


class BuildOrder(NamedTuple):
    """What to build: an ONNX file that `graph` declares, in a precision, between shapes.

    `timing_cache`: what earlier builds have measured; `limit_s`: how long it may take.
    """

    path: Path
    graph: Graph
    precision: str
    profiles: Sequence[Profile]
    workspace_mib: int
    limit_s: float
    timing_cache: bytes = b""


class BuiltEngine(NamedTuple):
    """The engine as the library wrote it, and what it has measured; empty where it keeps none."""

    engine: memoryview
    timing_cache: bytes


def build(flavour: Flavour, order: BuildOrder, tell: Tell) -> BuiltEngine:
    """Build one engine; `tell` gets phase and percent, from any thread.

    Raises:
        RungUnavailable: the library is not there.
        GraphMismatch: the ONNX file is not what the manifest declares.
        BuildFailed: the library cannot parse or build it; with what it said last.
        BuildTimedOut: it took longer than the order allows.
    """
    trt = import_library(flavour)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # each version deprecates the last
        return _Build(trt, flavour, order, tell).run()


class _Build:
    """One build. Objects are kept until the end: those of the library point at one another."""

    def __init__(self, trt: Any, flavour: Flavour, order: BuildOrder, tell: Tell) -> None:  # noqa: ANN401
        self._trt = trt
        self._flavour = flavour
        self._order = order
        self._recipe = recipe(flavour, trt.__version__, order.precision)
        self._deadline = time.monotonic() + order.limit_s
        self._tell = tell
        self._logger, self._said = collecting_logger(trt)

    def run(self) -> BuiltEngine:
        builder = self._made(self._trt.Builder, self._logger)
        network = builder.create_network(self._network_flags())
        parser = self._trt.OnnxParser(network, self._logger)
        self._parse(parser)
        self._check(network)
        config = builder.create_builder_config()
        self._configure(builder, config)
        steps = BuildSteps()
        config.progress_monitor = monitor = _monitor(self._trt, steps, self._tell, self._deadline)
        engine = builder.build_serialized_network(network, config)
        if monitor.stopped:
            raise BuildTimedOut(
                f"{self._name}: expected an engine within {self._order.limit_s:g} s, found the "
                f"builder still at {steps.phase!r}, {steps.percent:.0f} % of its steps done",
                mend="Raise builder.time_limit_s, or narrow the bounds of the graph's sizes",
            )
        if engine is None:
            raise self._failed("an engine")
        return BuiltEngine(memoryview(engine), self._measured(config))

    @property
    def _name(self) -> str:
        return self._order.path.name

    def _made(self, kind: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
        try:
            return kind(*arguments)
        except (RuntimeError, TypeError) as error:  # a constructor that gives null
            raise self._failed("the builder to start", str(error)) from error

    def _network_flags(self) -> int:
        """Bit masks from the enumeration: the bits are others in each version."""
        flags = self._trt.NetworkDefinitionCreationFlag
        return 1 << int(flags.STRONGLY_TYPED) if self._recipe.strongly_typed else 0

    def _parse(self, parser: Any) -> None:  # noqa: ANN401
        if hasattr(self._trt, "init_libnvinfer_plugins"):
            self._trt.init_libnvinfer_plugins(self._logger, "")
        self._tell("parsing", 0.0)
        if parser.parse_from_file(str(self._order.path)):
            return
        errors = (parser.get_error(index) for index in range(parser.num_errors))
        raise self._failed("a graph that it can parse", "; ".join(map(_parser_error, errors)))

    def _check(self, network: Any) -> None:  # noqa: ANN401
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        for one in inputs:
            if one.is_shape_tensor:
                raise BuildFailed(
                    f"{self._name}: expected inputs of data, found that the values of "
                    f"{one.name!r} are sizes, which a profile cannot bound without knowing them",
                    mend="Export the graph so that it derives sizes from the shapes of its inputs",
                )
        borders = (list(map(_file_tensor, side)) for side in (inputs, outputs))
        check_graph(self._name, self._order.graph, *borders)
        wanted = TYPES_OF.get(self._order.precision)
        if self._recipe.strongly_typed and wanted and wanted not in _types(network):
            raise BuildFailed(
                f"{self._name}: expected {self._order.precision} tensors in the file, whose types "
                f"{self._flavour.title} {self._trt.__version__} keeps to, found none",
                mend=f"Give the bundle a {self._order.precision} variant of this graph",
            )

    def _configure(self, builder: Any, config: Any) -> None:  # noqa: ANN401
        flag, pool = self._trt.BuilderFlag, self._trt.MemoryPoolType.WORKSPACE
        for name in self._recipe.on:
            config.set_flag(getattr(flag, name))
        for name in self._recipe.off:
            config.clear_flag(getattr(flag, name))
        config.set_memory_pool_limit(pool, self._order.workspace_mib << 20)
        if self._order.profiles:
            self._add_profile(builder, config)
        if self._flavour.keeps_timing:
            self._begin_measuring(config)

    def _add_profile(self, builder: Any, config: Any) -> None:  # noqa: ANN401
        profile = builder.create_optimization_profile()
        try:
            for one in self._order.profiles:
                profile.set_shape(one.name, tuple(one.min), tuple(one.opt), tuple(one.max))
        except (RuntimeError, ValueError, TypeError) as error:
            raise self._failed("a profile of these shapes", str(error)) from error
        if config.add_optimization_profile(profile) < 0:
            raise self._failed("a profile of these shapes")

    def _begin_measuring(self, config: Any) -> None:  # noqa: ANN401
        """Begin with what earlier builds have measured; with nothing where it does not fit."""
        cache = config.create_timing_cache(self._order.timing_cache)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def _measured(self, config: Any) -> bytes:  # noqa: ANN401
        cache = config.get_timing_cache() if self._flavour.keeps_timing else None
        return bytes(cache.serialize()) if cache is not None else b""

    def _failed(self, expected: str, found: str = "") -> BuildFailed:
        said = self._said.last_error
        return BuildFailed(
            f"{self._name}: {self._flavour.title} {self._trt.__version__}: expected {expected}, "
            f"found: {found or said or 'no reason given'}"
        )


def _monitor(trt: Any, steps: BuildSteps, tell: Tell, deadline: float) -> Any:  # noqa: ANN401
    """Make what the library reports to; it tells the library to stop when time is up."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            steps.start(phase_name, parent_phase, num_steps)
            tell(steps.phase, steps.percent)

        def step_complete(self, phase_name: str, step: int) -> bool:
            steps.step(phase_name, step)
            tell(steps.phase, steps.percent)
            self.stopped = self.stopped or time.monotonic() > deadline
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            steps.finish(phase_name)

    return Monitor()


def _parser_error(error: Any) -> str:  # noqa: ANN401
    where = error.node_name() or error.node_operator()
    return f"{error.desc()}" + (f" (at {where})" if where else "")


def _file_tensor(tensor: Any) -> FileTensor:  # noqa: ANN401
    datatype = DATATYPES.get(tensor.dtype.name, tensor.dtype.name)
    shape = tuple(None if size < 0 else int(size) for size in tensor.shape)
    return FileTensor(tensor.name, datatype, shape)


def _types(network: Any) -> set[str]:  # noqa: ANN401
    """The datatypes of all tensors in a network, as the library calls them."""
    return {one.dtype.name for one in _tensors(network) if one is not None}


def _tensors(network: Any) -> Iterator[Any]:  # noqa: ANN401
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        yield from (layer.get_output(number) for number in range(layer.num_outputs))
        yield from (layer.get_input(number) for number in range(layer.num_inputs))
