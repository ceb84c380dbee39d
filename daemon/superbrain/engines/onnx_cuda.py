"""ONNX Runtime on an NVIDIA GPU: whether it works here, and its options.

`get_available_providers()` names CUDA wherever the GPU build is installed, and a session that asks
for it without a usable GPU silently runs on the processor. So it is tried: a graph of one node must
come up on CUDA before any other is opened.

docs/gpu.md says on which GPUs this has run.
Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

from superbrain.engines.onnx_session import said
from superbrain.engines.port import NoDevice, NotInstalled
from superbrain.engines.tiny_graph import tiny_graph

if TYPE_CHECKING:
    from superbrain.domain.manifest import Graph

CUDA_PROVIDER = "CUDAExecutionProvider"
_INSTALL = (
    "Install superbrain[gpu] into an environment of its own: onnxruntime and onnxruntime-gpu "
    "overwrite each other's files"
)
_LOOK = "See that `nvidia-smi` works for this user, and that driver and CUDA libraries fit"


def require_cuda(library: Any) -> None:  # noqa: ANN401 - the library has no types
    """See that a session can run on CUDA here; `library` is the imported onnxruntime.

    Raises:
        NotInstalled: it is a build without CUDA.
        NoDevice: there is no GPU that works, or a library or driver it needs.
    """
    offered = library.get_available_providers()
    if CUDA_PROVIDER not in offered:
        raise NotInstalled(
            f"expected ONNX Runtime with {CUDA_PROVIDER}, found {', '.join(offered)}", mend=_INSTALL
        )
    missing = _load_libraries(library)
    options = library.SessionOptions()
    options.intra_op_num_threads = 1  # by itself it would start one for each processor, and pin it
    options.log_severity_level = 4  # what is wrong is in the exception, or shows in the provider
    try:
        session = library.InferenceSession(tiny_graph(), options, providers=[CUDA_PROVIDER])
    except Exception as error:
        raise NoDevice(
            f"expected a GPU that CUDA can use, found: {said(error)}", mend=_LOOK
        ) from error
    used = session.get_providers()[0]
    if used != CUDA_PROVIDER:
        found = f"expected a GPU that CUDA can use, found that {used} ran"
        raise NoDevice(f"{found}; {missing}" if missing else found, mend=_LOOK)


def _load_libraries(library: Any) -> str:  # noqa: ANN401
    """Load the CUDA libraries that are installed as packages; what the first missing one says."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):  # it tells what it misses with print()
        library.preload_dlls()
    return next(iter(told.getvalue().splitlines()), "")


def cuda_options(graph: Graph, *, tf32: bool) -> dict[str, str]:
    """Give the provider's options for one graph.

    The arena takes what is asked for instead of the next power of two, and no more than the
    manifest allows. Convolutions are chosen by rule: to try them all out would make the first
    request of every shape slow, and answers depend on what else the GPU did meanwhile.

    Args:
        graph: as the manifest declares it.
        tf32: whether products of FP32 may be rounded to tf32, which is the library's own default.
    """
    options = {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": "1",
        "use_tf32": str(int(tf32)),
    }
    if graph.gpu_memory_mb:
        options["gpu_mem_limit"] = str(graph.gpu_memory_mb << 20)
    return options
