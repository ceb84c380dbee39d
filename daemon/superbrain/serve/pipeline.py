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
from superbrain.engines.graph_check import InputMismatch
from superbrain.engines.port import EngineError
from superbrain.serve.bundle_code import BundleCode, BundleCodeError, describe, raised_by_bundle
from superbrain.serve.conversion import RequestConversion, ResponseConversion
from superbrain.wire.errors import Internal, InvalidArgument, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from superbrain.domain.contract import Bundle
    from superbrain.domain.manifest import Graph, GraphTensor, Manifest, Range
    from superbrain.engines.port import Engine
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
        self._engines = dict(engines)
        self._to_values = RequestConversion(manifest.interface.inputs)
        self._to_response = ResponseConversion(manifest.interface.outputs)
        self._custom = _construct(code, BundleView(files, manifest.graphs, engines))
        self.answer: Callable[[Arrays], Arrays] = self._choose()

    def _choose(self) -> Callable[[Arrays], Arrays]:
        custom = self._custom
        if custom is not None and callable(getattr(custom, "run", None)):
            self._callables = _Graphs({name: one.run for name, one in self._engines.items()})
            return self._answer_with_run
        if len(self._engines) != 1:
            raise BundleCodeError(
                f"expected a pipeline with run(request, graphs) for a bundle of "
                f"{len(self._engines)} graphs, found none",
                reason="CODE_NO_PIPELINE",
                mend="Add code/pipeline.py; docs/bundle-format.md shows one",
            )
        ((self._graph_name, self._engine),) = self._engines.items()
        if custom is None:
            return self._answer_plainly
        for step in ("preprocess", "postprocess"):
            if not callable(getattr(custom, step, None)):
                raise BundleCodeError(
                    f"expected class Pipeline of code/pipeline.py to have {step}, found none",
                    reason="CODE_NO_PIPELINE",
                    mend=_CONTRACT,
                )
        return self._answer_in_steps

    def _answer_plainly(self, request: Arrays) -> Arrays:
        try:
            return self._to_response.select(self._engine.run(request))
        except InputMismatch as error:
            raise InvalidArgument(error.message, mend=error.mend) from error
        except EngineError as error:
            raise Internal(error.message, mend=error.mend) from error

    def _answer_in_steps(self, request: Arrays) -> Arrays:
        custom: Any = self._custom
        values = self._to_values(request)
        inputs = _call(custom.preprocess, values, refuses=True)
        if not isinstance(inputs, dict):
            raise Internal(
                f"expected preprocess to return a dict of graph inputs, "
                f"found {type(inputs).__name__}"
            )
        try:
            outputs = self._engine.run(inputs)
        except EngineError as error:
            raise Internal(f"graph {self._graph_name!r} after preprocess: {error}") from error
        return self._to_response(_call(custom.postprocess, outputs, values))

    def _answer_with_run(self, request: Arrays) -> Arrays:
        custom: Any = self._custom
        values = self._to_values(request)
        return self._to_response(_call(custom.run, values, self._callables, refuses=True))


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


def _call(step: Callable[..., Any], *arguments: object, refuses: bool = False) -> object:
    """Call bundle code; with `refuses` a ValueError that it raises is the caller's fault."""
    try:
        return step(*arguments)
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        if refuses and isinstance(error, ValueError) and raised_by_bundle(error):
            raise InvalidArgument(str(error) or "the pipeline refused the request") from error
        raise _failed(step, error) from error


def _failed(step: Callable[..., Any], error: BaseException) -> Internal:
    name = getattr(step, "__name__", "pipeline")
    return Internal(f"the bundle's {name} failed: {describe(error)}")


def _no_graph(name: str, graphs: Mapping[str, object]) -> BundleCodeError:
    return BundleCodeError(
        f"expected one of the bundle's graphs, {', '.join(graphs)}; found {name!r}",
        reason="CODE_NO_GRAPH",
    )
