"""The bundle's pipeline: its own steps around its graphs, as one class that the bundle brings.

`code/pipeline.py` defines `Pipeline`, constructed once per process:

    class Pipeline:
        def __init__(self, bundle): ...   # bundle.asset("labels.txt"), bundle.graph("det").metadata
        def preprocess(self, request): ...            # request values -> graph inputs
        def postprocess(self, outputs, request): ...  # graph outputs -> response values
        # or, for several graphs, instead of the two above:
        def run(self, request, graphs): ...           # graphs["det"]({"x": array}) -> outputs

`superbrain.domain.contract` has it as types. A bundle without code serves its single graph's
tensors as they are. A ValueError that the bundle's own code raises in `preprocess` or `run` is how
a pipeline refuses a request. Whatever else comes out, a ValueError of numpy included, is the
pipeline's own failure, reported with the bundle's file and line.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from superbrain.domain.errors import BundleError
from superbrain.serve import bundle_code
from superbrain.serve.bundle_code import BundleCode, BundleCodeError, describe
from superbrain.serve.conversion import RequestConversion, ResponseConversion
from superbrain.serve.steps import GraphSteps, PipelineSteps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from superbrain.domain.contract import Bundle
    from superbrain.domain.manifest import Graph, GraphTensor, Interface, Manifest, Range
    from superbrain.engines.port import Bound, Engine
    from superbrain.serve.bundle_files import BundleFiles

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]
MODULE = "pipeline"
_CONTRACT = (
    "Define run(request, graphs), or both preprocess(request) and postprocess(outputs, request)"
)


class GraphView:
    """What a pipeline may know of a graph: what the manifest declares, and the file's metadata."""

    def __init__(self, name: str, graph: Graph, engine: Engine) -> None:
        self.name = name
        self.inputs: tuple[GraphTensor, ...] = engine.inputs
        self.outputs: tuple[GraphTensor, ...] = engine.outputs
        self.dynamic: Mapping[str, Range] = MappingProxyType(graph.dynamic)
        self.metadata: Mapping[str, str] = engine.metadata


class BundleView:
    """The `bundle` that a pipeline is constructed with: its assets and graphs, nothing else."""

    def __init__(
        self, files: BundleFiles, graphs: Mapping[str, Graph], engines: Mapping[str, Engine]
    ) -> None:
        self._files = files
        self._graphs = {
            name: GraphView(name, graphs[name], engine) for name, engine in engines.items()
        }

    def asset(self, name: str) -> bytes:
        """Give the bytes of `assets/NAME`, checked against the signed manifest.

        Raises:
            BundleCodeError: there is no such asset.
        """
        try:
            return self._files.read(f"assets/{name}")
        except KeyError:
            present = ", ".join(self._files.below("assets/")) or "no assets"
            raise BundleCodeError(
                f"expected asset {name!r} in the bundle, found {present}", reason="CODE_NO_ASSET"
            ) from None

    def text(self, name: str) -> str:
        """Give `assets/NAME` as text, which is UTF-8."""
        return self.asset(name).decode()

    def graph(self, name: str) -> GraphView:
        """Give one graph of the bundle by its name.

        Raises:
            BundleCodeError: there is no such graph.
        """
        if name not in self._graphs:
            raise _no_graph(name, self._graphs)
        return self._graphs[name]


class Pipeline:
    """Answers one validated request with one validated response, whatever the bundle brings.

    Attributes:
        answer: takes a request that fits the interface, gives the response.
        bound: gives the memory that is bound to the graph, where its run is all there is to that.
        steps: the same in single steps; None for a pipeline that runs its graphs itself.

    Raises:
        BundleCodeError: the bundle's class is missing, raises, or does not keep the contract.
    """

    def __init__(
        self,
        code: BundleCode,
        files: BundleFiles,
        engines: Mapping[str, Engine],
        manifest: Manifest,
    ) -> None:
        custom: Any = _construct(code, BundleView(files, manifest.graphs, engines))
        self.steps: GraphSteps | None = None
        self.answer: Callable[[Arrays], Arrays]
        self.bound: Callable[[], Bound | None] = _nothing
        if callable(getattr(custom, "run", None)):
            self.answer = _runner(custom.run, engines, manifest.interface)
        else:
            self.steps = _steps(custom, engines, manifest.interface)
            self.answer = self.steps.answer
            self.bound = self.steps.bound


def _nothing() -> None:
    """Give no memory: there is more to an answer than the run of one graph."""


def _runner(
    run: Callable[..., Any], engines: Mapping[str, Engine], interface: Interface
) -> Callable[[Arrays], Arrays]:
    to_values, to_response = (
        RequestConversion(interface.inputs),
        ResponseConversion(interface.outputs),
    )
    graphs = _Graphs({name: one.run for name, one in engines.items()})

    def answer(request: Arrays) -> Arrays:
        return to_response(bundle_code.call(run, to_values(request), graphs, refuses=True))

    return answer


def _steps(custom: object, engines: Mapping[str, Engine], interface: Interface) -> GraphSteps:
    if len(engines) != 1:
        raise BundleCodeError(
            f"expected a pipeline with run(request, graphs) for a bundle of "
            f"{len(engines)} graphs, found none",
            reason="CODE_NO_PIPELINE",
            mend="Add code/pipeline.py; docs/bundle-format.md shows one",
        )
    ((name, engine),) = engines.items()
    if custom is None:
        return GraphSteps(engine, interface)
    for step in ("preprocess", "postprocess"):
        if not callable(getattr(custom, step, None)):
            raise BundleCodeError(
                f"expected class Pipeline of code/pipeline.py to have {step}, found none",
                reason="CODE_NO_PIPELINE",
                mend=_CONTRACT,
            )
    return PipelineSteps(engine, interface, name, custom)


class _Graphs(dict[str, Any]):
    """The graphs that `run` gets, by name; a wrong name is answered with the right ones."""

    def __missing__(self, name: str) -> Any:  # noqa: ANN401
        raise _no_graph(name, self)


def _construct(code: BundleCode, bundle: Bundle) -> object:
    """Make the bundle's own Pipeline; None when the bundle brings no code."""
    if not code.modules:
        return None
    if MODULE not in code.modules:
        raise BundleCodeError(
            f"expected code/pipeline.py, found only {', '.join(code.modules)} in code/",
            reason="CODE_NO_PIPELINE",
        )
    kind = getattr(code.import_module(MODULE), "Pipeline", None)
    if not isinstance(kind, type):
        raise BundleCodeError(
            f"expected class Pipeline in code/pipeline.py, found {type(kind).__name__}",
            reason="CODE_NO_PIPELINE",
            mend=_CONTRACT,
        )
    try:
        made: object = kind(bundle)
    except BundleError:
        raise
    except (Exception, SystemExit) as error:
        raise BundleCodeError(
            f"expected Pipeline(bundle) to construct, found {describe(error)}",
            reason="CODE_DOES_NOT_CONSTRUCT",
        ) from error
    return made


def _no_graph(name: str, graphs: Mapping[str, object]) -> BundleCodeError:
    return BundleCodeError(
        f"expected one of the bundle's graphs, {', '.join(graphs)}; found {name!r}",
        reason="CODE_NO_GRAPH",
    )
