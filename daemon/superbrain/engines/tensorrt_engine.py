"""A built engine made runnable: what a worker does with the file that a builder wrote.

Loading an engine is running native code, so the bytes must be those that the daemon names, and
code for the host inside them is never allowed. The driver is asked before the library is touched:
without one, its runtime crashes instead of failing.

No engine of TensorRT has been executed by this project so far. What runs one has been, on a GPU and
with a stand-in for TensorRT's contexts; docs/gpu.md says what has been checked where.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superbrain.engines.cuda_driver import first_gpu
from superbrain.engines.device_memory import open_device
from superbrain.engines.graph_check import FileTensor, check_graph
from superbrain.engines.onnx_files import metadata_of
from superbrain.engines.open_graph import OpenGraph
from superbrain.engines.port import (
    EngineRefused,
    GraphMismatch,
    RungUnavailable,
)
from superbrain.engines.tensorrt_flavour import DATATYPES, import_library, lacks
from superbrain.engines.tensorrt_log import collecting_logger
from superbrain.engines.tensorrt_run import Runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from superbrain.domain.engine import EngineFile
    from superbrain.domain.manifest import Graph
    from superbrain.engines.device_memory import Device
    from superbrain.engines.port import Array
    from superbrain.engines.tensorrt_flavour import Flavour
    from superbrain.engines.tensorrt_log import Said


def open_engine(
    flavour: Flavour, rung: str, file: EngineFile, path: Path, graph: Graph
) -> TensorRtEngine:
    """Load a built engine for the first GPU.

    Args:
        flavour: the library that built it.
        rung: what it is.
        file: where it lies, and the sha256 of its bytes.
        path: the ONNX file it was built from, for its metadata.
        graph: what the manifest declares.

    Raises:
        RungUnavailable: no library, driver or GPU that fits.
        EngineRefused: the bytes are others, or are for another host or graph, or the library does
            not take them.
        DeviceError: there is not enough device memory.
    """
    data = _read(file)
    gpu = first_gpu()
    if lacking := lacks(flavour, rung.partition(":")[2], gpu.name, gpu.capability):
        raise RungUnavailable(f"{rung}: {lacking}")
    device = open_device()
    try:
        trt = import_library(flavour)
        check_host(file, gpu.name, str(trt.__version__))
        logger, said = collecting_logger(trt)
        runtime = trt.Runtime(logger)
        runtime.engine_host_code_allowed = False
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise _refused(f"{flavour.title} {trt.__version__} to take the engine", said)
        check_borders(path.name, graph, *_borders(trt, engine))
        runner = Runner(trt, engine, device, graph, captures=not flavour.captures_itself)
    except BaseException:
        device.close()
        raise
    name = f"{flavour.title} {trt.__version__} on {gpu.name}"
    return TensorRtEngine(rung, name, runner, device, graph, metadata_of(path), (logger, runtime))


class TensorRtEngine(OpenGraph[Runner]):
    """One engine on one GPU. Its inputs are checked on every run."""

    def __init__(
        self,
        rung: str,
        runtime: str,
        runner: Runner,
        device: Device,
        graph: Graph,
        metadata: Mapping[str, str],
        keep: tuple[Any, ...],
    ) -> None:
        super().__init__(rung, runtime, graph, runner, metadata)
        self._device = device
        self._keep = keep  # an engine points at its runtime, and that at its logger

    @property
    def captured_graphs(self) -> int:
        """How many CUDA graphs were captured here; TensorRT for RTX does so by itself."""
        return self._runner.captured_graphs if self._runner is not None else 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        misfit, runner = self._takes.misfit(inputs), self._runner
        if misfit or runner is None:
            raise self._refusal(misfit)
        return runner.run(inputs)

    def close(self) -> None:
        if self._runner is not None:
            super().close()  # contexts go before the memory that they use
            self._device.close()


def _read(file: EngineFile) -> bytes:
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise EngineRefused(f"{file.path}: expected to read it, found {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise EngineRefused(
            f"{file.path}: expected the engine with sha256 {file.sha256}, found {found}",
            mend="It is built again when the bundle is brought up the next time",
        )
    return data


def _borders(trt: Any, engine: Any) -> tuple[list[FileTensor], list[FileTensor]]:  # noqa: ANN401
    inputs: list[FileTensor] = []
    outputs: list[FileTensor] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(name).name
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        found = FileTensor(name, DATATYPES.get(dtype, dtype), shape)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(found)
    return inputs, outputs


def check_host(file: EngineFile, gpu: str, version: str) -> None:
    """See that an engine is for this GPU and library, before the library sees a byte of it.

    The daemon has chosen it by what it knows of this host, which may have changed meanwhile.

    Raises:
        EngineRefused: it is for others.
    """
    if (file.gpu or gpu, file.version or version) != (gpu, version):
        raise EngineRefused(
            f"expected an engine for {gpu} and version {version}, found one for "
            f"{file.gpu or 'any GPU'} and version {file.version or 'any'}",
            mend="The host is looked at anew when the bundle is brought up the next time",
        )


def check_borders(
    name: str, graph: Graph, inputs: list[FileTensor], outputs: list[FileTensor]
) -> None:
    """See that an engine is of this graph: the builder has seen that the ONNX file is.

    Raises:
        EngineRefused: it has other inputs or outputs.
    """
    try:
        check_graph(name, graph, inputs, outputs)
    except GraphMismatch as error:
        raise EngineRefused(f"the engine is not of this graph: {error.message}") from error


def _refused(expected: str, said: Said) -> EngineRefused:
    return EngineRefused(f"expected {expected}, found: {said.last_error or 'no reason given'}")
