"""A loaded model: the engines of all graphs on one rung and the pipeline around them.

This is what a worker serves and what a proof is about: one request of arrays in, one response of
arrays out, both checked against the interface the bundle declares.

    model = Model.open(folder, manifest, "onnxruntime:cpu")
    response = model.infer({"image": array})

BYTES tensors are object arrays of `bytes`; one of shape [] is a 0-d object array.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from superbrain.domain.rungs import graph_file, is_torchscript, missing_precision, wrong_form
from superbrain.domain.tensor_fit import TensorSet
from superbrain.engines.onnx_files import check_external_files
from superbrain.engines.port import EngineError, GraphMismatch, PrecisionMissing
from superbrain.engines.registry import built_runtime_for, runtime_for
from superbrain.serve.bundle_code import BundleCode, BundleCodeError
from superbrain.serve.bundle_files import BundleFiles
from superbrain.serve.pipeline import Pipeline
from superbrain.serve.stage_clock import StageClock, TimedEngine
from superbrain.serve.together import Together
from superbrain.wire.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    from superbrain.domain.engine import EngineFile
    from superbrain.domain.manifest import Graph, Manifest
    from superbrain.engines.port import Engine

    Wrap = Callable[[str, Engine], Engine]

Array = np.ndarray[Any, np.dtype[Any]]


class Model:
    """One bundle, loaded on one rung. Not thread-safe: one request at a time.

    `answer` is `infer` for a request that is known to fit the interface; `bound` gives the memory
    that is bound to the graph, where a run on it is the same; `together` answers several requests
    in one run; None where the manifest does not batch. `clock` is told of every run.
    """

    def __init__(
        self,
        manifest: Manifest,
        rung: str,
        engines: dict[str, Engine],
        pipeline: Pipeline,
        clock: StageClock,
    ) -> None:
        self.manifest = manifest
        self.clock = clock
        self.rung = rung
        self.engines = engines
        self.runtime = next(iter(engines.values())).runtime
        self.together: Together | None = None
        self._request = TensorSet("request tensor", manifest.interface.inputs)
        self.answer = pipeline.answer
        self.bound = pipeline.bound
        if manifest.serving.batching.max_size > 1:
            self.together = self._batched(pipeline)
        self._resources = ExitStack()

    @classmethod
    def open(
        cls,
        bundle_path: Path,
        manifest: Manifest,
        rung: str,
        wrap: Wrap | None = None,
        built: Sequence[EngineFile] = (),
    ) -> Self:
        """Load all graphs on `rung`, then the bundle's code.

        Args:
            bundle_path: folder that holds the bundle's files, unpacked and verified.
            manifest: the verified manifest.
            rung: one of the manifest's ladder.
            wrap: puts something of the caller's between pipeline and engine, such as a recorder.
            built: the engines that a builder has made, where the rung needs them.

        Raises:
            RungUnavailable, GraphMismatch, EngineError: a graph is not runnable here.
            BundleCodeError: the bundle's code does not import or keep its contract.
            StoreError: a file is gone or is not what was signed.
        """
        files = BundleFiles(bundle_path, manifest)
        load = _Loading(rung, files, {engine.graph: engine for engine in built})
        load.check_precision(manifest)
        with ExitStack() as resources:
            engines: dict[str, Engine] = {}
            clock = StageClock()
            for name, graph in manifest.graphs.items():
                engines[name] = TimedEngine(load.graph(name, graph), clock)
                resources.callback(engines[name].close)
            if wrap is not None:
                engines = {name: wrap(name, engine) for name, engine in engines.items()}
            code = BundleCode(files)
            resources.callback(code.close)
            pipeline = Pipeline(code, files, engines, manifest)
            model = cls(manifest, rung, engines, pipeline, clock)
            model._resources = resources.pop_all()
        return model

    def infer(self, request: dict[str, Array]) -> dict[str, Array]:
        """Answer one request.

        Args:
            request: one array per request tensor of the interface.

        Returns:
            One array per response tensor, in the order of the interface.

        Raises:
            InvalidArgument: the request is not what the interface says, or the pipeline refuses it.
            Internal: the graph or the bundle's code failed, or answered what it must not.
        """
        self._check(request)
        return self.answer(request)

    def _check(self, request: dict[str, Array]) -> None:
        misfit = self._request.misfit(request)
        if misfit:
            raise InvalidArgument(misfit)

    def _batched(self, pipeline: Pipeline) -> Together:
        if pipeline.steps is None:
            raise BundleCodeError(
                "expected a pipeline with preprocess and postprocess for serving.batching, found "
                "run(request, graphs), whose runs cannot be shared",
                reason="CODE_NOT_BATCHABLE",
                mend="Set serving.batching max_size = 1, or split run into the two steps",
            )
        return Together(pipeline.steps, self.manifest.serving.batching.max_size, self._check)

    def close(self) -> None:
        """Free engines and forget the bundle's modules."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Loading:
    """Makes graphs runnable on one rung."""

    def __init__(self, rung: str, files: BundleFiles, built: dict[str, EngineFile]) -> None:
        self._rung = rung
        self._files = files
        self._built = built
        self._runtime = runtime_for(rung)
        self._from_built = built_runtime_for(rung)

    def check_precision(self, manifest: Manifest) -> None:
        """See that the bundle has what the rung is named for.

        Raises:
            PrecisionMissing: no graph has a file of its precision.
        """
        missing = missing_precision(manifest.graphs, self._rung)
        if missing and self._runtime.needs_file(self._rung):
            raise PrecisionMissing(missing, mend="Make it with `superbrain bundle precision`")

    def graph(self, name: str, graph: Graph) -> Engine:
        """Load one graph; what goes wrong names it."""
        try:
            return self._load(name, graph, graph_file(graph, self._rung))
        except EngineError as error:
            raise type(error)(f"graph {name!r}: {error.message}", mend=error.mend) from error

    def _load(self, name: str, graph: Graph, path: str) -> Engine:
        if wrong := wrong_form(path, self._rung):
            raise EngineError(wrong, mend="torchscript:… runs TorchScript, all other rungs ONNX")
        if not is_torchscript(path):
            check_external_files(self._files.root, path, self._files)
        file = self._files.root / path
        try:
            if self._from_built is not None and name in self._built:
                return self._from_built.load_built(self._rung, self._built[name], file, graph)
            return self._runtime.load(self._rung, file, graph)
        except GraphMismatch as error:
            if path == graph.path:
                raise
            # A further precision that is wrong is no judgement on the graph as it is.
            raise EngineError(error.message, mend=error.mend) from error
