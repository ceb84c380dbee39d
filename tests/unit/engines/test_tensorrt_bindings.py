"""Every name of TensorRT that our code uses, held against the real bindings of 10, 11 and RTX."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from superbrain.engines import tensorrt_build, tensorrt_engine, tensorrt_log, tensorrt_run
from superbrain.engines.tensorrt_flavour import DATATYPES, RTX, TENSORRT, TYPES_OF, recipe
from tests.support.engines import needs_rtx
from tests.support.tensorrt_bindings import VERSIONS, bindings

MODULES = (tensorrt_build, tensorrt_engine, tensorrt_log, tensorrt_run)
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
# Only some of them have these, and the code asks for them with `hasattr` first.
OPTIONAL = {"CudaGraphStrategy", "init_libnvinfer_plugins"}
MEMBERS = {
    "Builder": "build_serialized_network create_builder_config create_network "
    "create_optimization_profile",
    "INetworkDefinition": "get_input get_layer get_output num_inputs num_layers num_outputs",
    "ILayer": "get_input get_output num_inputs num_outputs",
    "ITensor": "dtype is_shape_tensor name shape",
    "IBuilderConfig": "add_optimization_profile clear_flag create_timing_cache get_timing_cache "
    "progress_monitor set_flag set_memory_pool_limit set_timing_cache",
    "IOptimizationProfile": "set_shape",
    "OnnxParser": "get_error num_errors parse_from_file",
    "ParserError": "desc node_name node_operator",
    "ITimingCache": "serialize",
    "IProgressMonitor": "phase_finish phase_start step_complete",
    "ILogger": "ERROR log",
    "Runtime": "deserialize_cuda_engine engine_host_code_allowed",
    "ICudaEngine": "create_execution_context device_memory_size_v2 get_tensor_dtype "
    "get_tensor_mode get_tensor_name get_tensor_shape num_io_tensors",
    "IExecutionContext": "execute_async_v3 get_max_output_size get_tensor_shape infer_shapes "
    "set_input_shape set_output_allocator set_tensor_address",
    "MemoryPoolType": "WORKSPACE",
    "TensorIOMode": "INPUT",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "IOutputAllocator": "",
}
RTX_MEMBERS = {
    "CudaGraphStrategy": "WHOLE_GRAPH_CAPTURE",
    "ICudaEngine": "create_runtime_config",
    "IRuntimeConfig": "cuda_graph_strategy",
}
LIST = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
names = {name: sorted(dir(getattr(trt, name))) for name in dir(trt) if name[0].isupper()}
print(json.dumps({"version": trt.__version__, "all": sorted(dir(trt)), "names": names}))
"""


def listed(module: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-c", LIST, module]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=[*VERSIONS, pytest.param("rtx", marks=needs_rtx)])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401
    """What one library has."""
    if request.param == "rtx":
        return listed("tensorrt_rtx_bindings", {})
    return listed("tensorrt_bindings", bindings(request.param, tmp_path_factory.mktemp("stubs")))


def used_of_the_library() -> set[str]:
    """Every `trt.NAME` and `self._trt.NAME` in our code."""
    found = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.Attribute) and _is_library(node.value):
                found.add(node.attr)
    return found


def _is_library(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "_trt"
    return isinstance(node, ast.Name) and node.id == "trt"


def test_every_name_of_the_library_exists(real: dict[str, Any]) -> None:
    used = used_of_the_library()
    assert {"Builder", "Runtime", "IProgressMonitor", "IOutputAllocator"} <= used
    assert not used - OPTIONAL - set(real["all"])


def test_every_member_exists(real: dict[str, Any]) -> None:
    wanted = {kind: set(text.split()) for kind, text in MEMBERS.items()}
    assert not {
        f"{kind}.{name}"
        for kind, names in wanted.items()
        for name in names - set(real["names"].get(kind, ()))
    }


def test_every_member_of_the_table_is_used() -> None:
    source = "".join(Path(str(module.__file__)).read_text() for module in MODULES)
    names = {name for text in (MEMBERS | RTX_MEMBERS).values() for name in text.split()}
    assert not [name for name in names if name not in source]


def test_every_datatype_exists(real: dict[str, Any]) -> None:
    assert {*DATATYPES, *TYPES_OF.values()} <= set(real["names"]["DataType"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_flag_of_a_recipe_exists(real: dict[str, Any], precision: str) -> None:
    rtx = "CudaGraphStrategy" in real["all"]
    wanted = recipe(RTX if rtx else TENSORRT, real["version"], precision)
    assert {*wanted.on, *wanted.off} <= set(real["names"]["BuilderFlag"])


@needs_rtx
def test_what_only_tensorrt_for_rtx_has() -> None:
    found = listed("tensorrt_rtx_bindings", {})["names"]
    for kind, text in RTX_MEMBERS.items():
        assert set(text.split()) <= set(found[kind])
