"""TorchScript as an engine, for graphs that ONNX cannot say, on the processor and on a GPU.

    torchscript:cpu     the file as it is
    torchscript:cuda    the same on a GPU, without rounding to tf32

The file is what `torch.jit.save` writes. It holds code: PyTorch's interpreter runs it, in the
worker's sandbox, as bundle code. What it takes and gives it does not know by itself, so
`superbrain convert --native` puts a declaration beside the code (`Declaration`, an extra file of
the archive), which is held to the manifest. Without one, inputs are the arguments of `forward` by
their names, and outputs the keys of the dict that it returns, or their order. Whatever it returns
is held to the manifest at every run.

Inputs are copied: the code may change its arguments, and a caller's memory is not its own. The
executor that recompiles for shapes that it sees again is off: answers would change with the history
of the process, and some requests would be slow. The library is imported when an engine is asked
for, never before.
Source: https://pytorch.org/docs/stable/jit.html
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from superbrain.domain.manifest import GraphTensor
from superbrain.domain.rungs import uses_gpu
from superbrain.domain.tensor_fit import TensorSet
from superbrain.engines.gpu_errors import run_failed
from superbrain.engines.graph_check import FileTensor, check_graph
from superbrain.engines.open_graph import OpenGraph
from superbrain.engines.port import (
    EngineError,
    ExecutionFailed,
    GraphMismatch,
    NoDevice,
    NotInstalled,
    RungUnavailable,
)
from superbrain.wire.datatypes import BYTES, DATATYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from superbrain.domain.manifest import Graph
    from superbrain.engines.port import Array

DECLARATION: Final = "superbrain.json"
_RUNGS: Final = ("torchscript:cpu", "torchscript:cuda")
_INSTALL: Final = "Install it with: pip install 'superbrain[cpu,torch]'"
_LOOK: Final = "See that `nvidia-smi` works for this user, and that this build of torch has CUDA"


class Declaration(msgspec.Struct, frozen=True):
    """What `convert --native` puts into the archive; a string names a size that is open."""

    inputs: list[GraphTensor]
    outputs: list[GraphTensor]
    metadata: dict[str, str] = {}


class TorchScript:
    """The runtime: makes TorchScript files runnable through PyTorch."""

    @property
    def rungs(self) -> tuple[str, ...]:
        return _RUNGS

    def needs_file(self, rung: str) -> bool:
        return rung not in _RUNGS

    def unavailable(self, rung: str) -> str:
        try:
            _library_for(rung)
        except RungUnavailable as error:
            return str(error)
        return ""

    def load(self, rung: str, path: Path, graph: Graph) -> TorchScriptEngine:
        library = _library_for(rung)
        _set_up(library, graph, gpu=uses_gpu(rung))
        device = "cuda" if uses_gpu(rung) else "cpu"
        module, declared = _opened(library, path, device)
        order, declaration = _check(path.name, graph, module, declared)
        runtime = f"torch {library.__version__}"
        metadata = declaration.metadata if declaration is not None else {}
        return TorchScriptEngine(
            rung, runtime, graph, _Run(library, module, device, order), metadata
        )


def _opened(library: Any, path: Path, device: str) -> tuple[Any, str | bytes]:  # noqa: ANN401
    """Open the archive; the module, and what is declared beside it.

    Raises:
        EngineError: PyTorch does not take it.
    """
    extra: dict[str, str | bytes] = {DECLARATION: ""}
    try:
        with warnings.catch_warnings():
            # That PyTorch would rather have another form is the author's affair; see docs/rungs.md.
            warnings.simplefilter("ignore", DeprecationWarning)
            module = library.jit.load(str(path), map_location=device, _extra_files=extra)
        module.eval()
    except Exception as error:
        raise EngineError(f"{path.name}: PyTorch refused to load it: {_said(error)}") from error
    return module, extra[DECLARATION]


def _library_for(rung: str) -> Any:  # noqa: ANN401 - the library has no types
    """Import the library and see that it can run `rung` here.

    Raises:
        RungUnavailable: it cannot.
    """
    try:
        library = importlib.import_module("torch")
        _ = library.jit.load
    except (ImportError, AttributeError, OSError) as error:
        raise NotInstalled(
            f"expected the package torch, found none that works: {error}", mend=_INSTALL
        ) from error
    if uses_gpu(rung):
        _require_cuda(library)
    return library


def _require_cuda(library: Any) -> None:  # noqa: ANN401
    if library.version.cuda is None:
        raise NotInstalled(
            f"expected PyTorch with CUDA, found {library.__version__}, which is built without",
            mend="Install the build with CUDA: it is the one of the package index",
        )
    try:
        library.zeros(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError) as error:
        raise NoDevice(
            f"expected a GPU that CUDA can use, found: {_said(error)}", mend=_LOOK
        ) from error


def _set_up(library: Any, graph: Graph, *, gpu: bool) -> None:  # noqa: ANN401
    """Set what PyTorch has for the whole process: threads, exact products, a bound on memory."""
    library.set_num_threads(max(1, graph.threads))
    if library.get_num_interop_threads() != 1:
        with contextlib.suppress(RuntimeError):  # once it has run in parallel it stays as it is
            library.set_num_interop_threads(1)
    if not gpu:
        return
    library.backends.cuda.matmul.allow_tf32 = False
    library.backends.cudnn.allow_tf32 = False
    library.backends.cudnn.benchmark = False
    if graph.gpu_memory_mb:
        whole = library.cuda.get_device_properties(0).total_memory
        share = min(1.0, (graph.gpu_memory_mb << 20) / whole)
        library.cuda.set_per_process_memory_fraction(share)


def _check(
    where: str,
    graph: Graph,
    module: Any,  # noqa: ANN401
    declared: str | bytes,
) -> tuple[list[str], Declaration | None]:
    """Hold the file to the manifest; the order of its inputs, and its declaration.

    Raises:
        GraphMismatch: they contradict each other.
    """
    for one in (*graph.inputs, *graph.outputs):
        if one.datatype == BYTES:
            raise GraphMismatch(
                f"{where}: {one.name!r}: expected numbers, found BYTES: TorchScript has no tensors "
                "of text",
                mend="Take texts apart in code/pipeline.py",
            )
    if not declared:
        return _check_arguments(where, graph, module), None
    try:
        declaration = msgspec.json.decode(declared, type=Declaration)
    except msgspec.MsgspecError as error:
        raise GraphMismatch(
            f"{where}: expected a declaration in {DECLARATION}, found: {error}"
        ) from error
    sides = [
        [_file_tensor(where, one) for one in side]
        for side in (declaration.inputs, declaration.outputs)
    ]
    check_graph(where, graph, *sides)
    return [one.name for one in declaration.inputs], declaration


def _file_tensor(where: str, one: GraphTensor) -> FileTensor:
    if one.datatype not in DATATYPES:
        raise GraphMismatch(
            f"{where}: {one.name!r}: expected a tensor of {', '.join(sorted(DATATYPES))}, "
            f"found {one.datatype}, which numpy cannot hold",
            mend="Script the module with a Cast to float32 (`.float()`) at its borders",
        )
    return FileTensor(one.name, one.datatype, tuple(one.shape))


def _check_arguments(where: str, graph: Graph, module: Any) -> list[str]:  # noqa: ANN401
    """The arguments of `forward`, which are the inputs' names where nothing else says them."""
    arguments = [one.name for one in module.forward.schema.arguments[1:]]
    wanted = sorted(one.name for one in graph.inputs)
    if sorted(arguments) != wanted:
        raise GraphMismatch(
            f"{where}: expected inputs called as the arguments of forward "
            f"({', '.join(arguments)}), found {', '.join(wanted)} in the manifest",
            mend=f"Call them so, or put {DECLARATION} into the file: superbrain convert --native",
        )
    return arguments


class _Run:
    """Calls the module: arrays in the manifest's names in, arrays in its own order out."""

    def __init__(
        self,
        library: Any,  # noqa: ANN401
        module: Any,  # noqa: ANN401
        device: str,
        order: Sequence[str],
    ) -> None:
        self._library, self._module = library, module
        self._device, self._order = device, tuple(order)

    def __call__(self, inputs: Mapping[str, Array]) -> tuple[list[str], list[Array]]:
        library = self._library
        with library.inference_mode(), library.jit.optimized_execution(False):
            given = [self._tensor(inputs[name]) for name in self._order]
            found = self._module(*given)
            named = list(_flat("", found))
            return [name for name, _ in named], [_array(name, one) for name, one in named]

    def _tensor(self, array: Array) -> Any:  # noqa: ANN401
        own = self._library.from_numpy(np.array(array, order="C", copy=True))
        return own if self._device == "cpu" else own.to(self._device)


def _flat(name: str, found: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Tensors of whatever a module returned, in its order; a dict's under their keys."""
    if isinstance(found, dict):
        for key, one in found.items():
            yield from _flat(str(key), one)
    elif isinstance(found, (tuple, list)):
        for one in found:
            yield from _flat(name, one)
    elif found is not None:
        yield name, found


def _array(name: str, found: Any) -> Array:  # noqa: ANN401
    try:
        array: Array = np.ascontiguousarray(found.detach().cpu().numpy())
    except (AttributeError, TypeError) as error:
        raise ExecutionFailed(
            f"output {name!r}: expected a tensor that numpy holds, found "
            f"{getattr(found, 'dtype', type(found).__name__)}"
        ) from error
    return array.reshape(tuple(found.shape))  # ascontiguousarray makes one axis of none


class TorchScriptEngine(OpenGraph["_Run"]):
    """One module, called by `run`. What goes in and what comes out is checked on every run."""

    def __init__(
        self, rung: str, runtime: str, graph: Graph, run: _Run, metadata: Mapping[str, str]
    ) -> None:
        super().__init__(rung, runtime, graph, run, metadata)
        self._gives = TensorSet("graph output", graph.outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        misfit, run = self._takes.misfit(inputs), self._runner
        if misfit or run is None:
            raise self._refusal(misfit)
        try:
            names, arrays = run(inputs)
        except ExecutionFailed:
            raise
        except Exception as error:
            found = f"PyTorch failed on this input: {_said(error)}"
            raise run_failed(found, on_gpu=uses_gpu(self.rung)) from error
        return self._named(names, arrays)

    def _named(self, names: Sequence[str], arrays: Sequence[Array]) -> dict[str, Array]:
        """Outputs by the manifest's names: by the module's own keys, or else by their order."""
        if sorted(names) == sorted(self._names):
            by_name = dict(zip(names, arrays, strict=True))
            outputs = {name: by_name[name] for name in self._names}
        elif len(arrays) == len(self._names):
            outputs = dict(zip(self._names, arrays, strict=True))
        else:
            raise ExecutionFailed(
                f"expected {len(self._names)} outputs ({', '.join(self._names)}), found that the "
                f"module gives {len(arrays)}"
            )
        if misfit := self._gives.misfit(outputs):
            raise ExecutionFailed(misfit)
        return outputs


def _said(error: Exception) -> str:
    """The end of what the library said, where the reason stands, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-2:])[:400] or type(error).__name__
