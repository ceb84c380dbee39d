"""A bundle of the store, opened to be served: manifest, model and proof behind one small face.

The daemon verified the bundle's signature before it went into the store and tells the digest of
the manifest it means. The manifest found here must have that digest. Code, assets and golden files
are hashed against it when this process reads them. Graph files are opened by the runtime itself:
the store has hashed them when the bundle came in, and does so again at every start of the daemon.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from superbrain.bundle.store import stored_manifest
from superbrain.domain.rungs import uses_gpu
from superbrain.serve.gpu_end import EndsWithGpu
from superbrain.serve.model import Model
from superbrain.serve.proving import prove, reprove
from superbrain.serve.timing import time_requests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from superbrain.domain.ctl import Load
    from superbrain.domain.manifest import Manifest
    from superbrain.domain.proof import Proof, Timing
    from superbrain.serve.served import Executing
    from superbrain.wire.datatypes import Array


class ServedBundle:
    """One bundle on one rung, as a worker serves it."""

    def __init__(self, folder: Path, manifest: Manifest, model: Model) -> None:
        self._folder = folder
        self._manifest = manifest
        self._model = model
        self.infer = model.infer
        self.answer = model.answer
        self.bound = model.bound
        self.batching = manifest.serving.batching
        self.clock = model.clock
        self.name = manifest.name
        self.version = manifest.version
        self.outputs = tuple(tensor.name for tensor in manifest.interface.outputs)

    @classmethod
    def open(cls, order: Load) -> Self:
        """Open the bundle that `order` names.

        Raises:
            StoreError: the folder does not hold the manifest that the daemon verified.
            EngineError, BundleError: as `Model.open`.
        """
        folder = Path(order.bundle_path)
        manifest = stored_manifest(folder, order.manifest_sha256)
        wrap = EndsWithGpu if uses_gpu(order.rung) else None
        model = Model.open(folder, manifest, order.rung, wrap, order.engines)
        return cls(folder, manifest, model)

    @property
    def runtime(self) -> str:
        """Library and version that run the graphs."""
        return self._model.runtime

    @property
    def queue_size(self) -> int:
        """How many requests may wait."""
        return self._manifest.serving.queue_size

    @property
    def request_timeout_ms(self) -> int:
        """How long a request may take that does not say so itself."""
        return self._manifest.serving.request_timeout_ms

    def infer_together(
        self, requests: Sequence[dict[str, Array]], executing: Executing
    ) -> list[dict[str, Array] | BaseException]:
        """Answer several requests with as few runs as may be."""
        assert self._model.together is not None  # noqa: S101 - asked only where max_size allows it
        return self._model.together.answer(requests, executing)

    def prove(self) -> Proof:
        """Run every golden case through the model that will serve."""
        return prove(self._model, self._folder, self._manifest)

    def time(self) -> Timing:
        """Run all golden cases for a while, for their time."""
        return time_requests(self._model, self._folder, self._manifest)

    def reprove(self, case: int) -> Proof:
        """Run one golden case again through the model that serves."""
        return reprove(self._model, self._folder, self._manifest, case)
