"""Engines that a bundle brings along: for whom, what a manifest may say, who is to blame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from superbrain.domain.carried import blames_engine, carried_for, fitting, misfit
from superbrain.domain.engine import EngineHost, EngineKey, engine_key
from superbrain.domain.errors import ManifestError
from superbrain.domain.manifest import CarriedEngine, FileEntry, GoldenCase, Manifest, Range
from superbrain.domain.manifest_json import encode_manifest, parse_manifest
from tests.support.graphs import ADD
from tests.support.models import border, write_model

RUNG = "tensorrt:fp16"
HOST = EngineHost("tensorrt", "10.16.1.11", "NVIDIA L4", "8.9")
PATH = "engines/one/engine"
REQUEST = {name: f"golden/one/request/{name}.npy" for name in ("a", "b")}
RESPONSE = {"sum": "golden/one/response/sum.npy"}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A bundle that brings one engine for `HOST`."""
    plain = write_model(
        tmp_path,
        graphs={"add": ADD},
        inputs=[border(name, "FP32", -1, 3) for name in ("a", "b")],
        outputs=[border("sum", "FP32", -1, 3)],
        files={PATH: "an engine", **dict.fromkeys((*REQUEST.values(), *RESPONSE.values()), "-")},
        cases=[GoldenCase("one", REQUEST, RESPONSE)],
    )
    plain = msgspec.structs.replace(plain, ladder=[RUNG, "onnxruntime:cpu"])
    key = engine_key(plain, plain.graphs["add"], RUNG, HOST, ["FP16", "TF32"], 1024)
    return msgspec.structs.replace(plain, engines=[CarriedEngine("add", PATH, key, "580", "13.0")])


def with_key(manifest: Manifest, **changes: Any) -> Manifest:  # noqa: ANN401 - fields of EngineKey
    (engine,) = manifest.engines
    key = msgspec.structs.replace(engine.key, **changes)
    return msgspec.structs.replace(manifest, engines=[msgspec.structs.replace(engine, key=key)])


def with_engine(manifest: Manifest, **changes: Any) -> Manifest:  # noqa: ANN401 - as above
    (engine,) = manifest.engines
    return msgspec.structs.replace(manifest, engines=[msgspec.structs.replace(engine, **changes)])


def key_of(manifest: Manifest) -> EngineKey:
    return manifest.engines[0].key


# --- what a manifest may say ----------------------------------------------------------------------


def check(manifest: Manifest) -> Manifest:
    return parse_manifest(encode_manifest(manifest))


def test_a_bundle_that_brings_an_engine_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert check(manifest) == manifest


def refusal(manifest: Manifest) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        check(manifest)
    return caught.value


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"graph": "0" * 64}, "as it is in this bundle"),
        ({"profiles": []}, "for the bounds of graph 'add'"),
        ({"precision": "int8"}, "expected an engine of a rung of the ladder"),
        ({"runtime": "tensorrt-rtx"}, "expected an engine of a rung of the ladder"),
        ({"version": ""}, "expected key.version of the host"),
        ({"gpu": ""}, "expected key.gpu of the host"),
        ({"compute_capability": ""}, "expected key.compute_capability"),
        ({"workspace_mib": -1}, "expected key.workspace_mib of 0"),
        ({"flags": ["TF32"] * 65}, "expected at most 64 flags"),
    ],
)
def test_an_entry_that_contradicts_the_bundle_is_refused(
    manifest: Manifest, changes: dict[str, Any], says: str
) -> None:
    error = refusal(with_key(manifest, **changes))
    assert error.reason == "MANIFEST_ENGINE"
    assert says in error.message
    assert "superbrain bundle engines" in error.mend


@pytest.mark.parametrize("changes", [{"gpu": "\x1b[2J"}, {"flags": ["\x07"]}])
def test_what_would_fool_a_terminal_is_refused(manifest: Manifest, changes: Any) -> None:  # noqa: ANN401
    assert refusal(with_key(manifest, **changes)).reason == "MANIFEST_TEXT"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"graph": "sub"}, "MANIFEST_ENGINE"),
        ({"path": "engines/two/engine"}, "MANIFEST_FILE_MISSING"),
        ({"path": "graphs/add.onnx"}, "MANIFEST_FILE_MISSING"),
        ({"driver": "\x00"}, "MANIFEST_TEXT"),
    ],
)
def test_an_entry_must_name_a_graph_and_a_file(
    manifest: Manifest, changes: dict[str, Any], reason: str
) -> None:
    assert refusal(with_engine(manifest, **changes)).reason == reason


def test_a_file_without_an_entry_would_never_be_used(manifest: Manifest) -> None:
    error = refusal(msgspec.structs.replace(manifest, engines=[]))
    assert error.reason == "MANIFEST_ENGINE"
    assert PATH in error.message


def test_the_same_engine_twice_is_refused(manifest: Manifest) -> None:
    twice = msgspec.structs.replace(manifest, engines=manifest.engines * 2)
    assert "expected every engine once" in refusal(twice).message


def test_too_many_engines_are_refused(manifest: Manifest) -> None:
    many = msgspec.structs.replace(manifest, engines=manifest.engines * 257)
    assert "expected at most 256" in refusal(many).message


def test_an_unknown_part_of_a_key_is_refused(manifest: Manifest) -> None:
    payload = encode_manifest(manifest).replace(b'"gpu":', b'"color":"red","gpu":')
    with pytest.raises(ManifestError) as caught:
        parse_manifest(payload)
    assert caught.value.reason == "MANIFEST_UNKNOWN_FIELD"


# --- for whom it is -------------------------------------------------------------------------------


def test_engines_belong_to_one_rung(manifest: Manifest) -> None:
    assert carried_for(manifest, RUNG) == tuple(manifest.engines)
    assert carried_for(manifest, "onnxruntime:cpu") == ()


def test_the_very_key_fits(manifest: Manifest) -> None:
    key = key_of(manifest)
    assert fitting(manifest.engines, "add", key) == manifest.engines[0]
    assert fitting(manifest.engines, "other", key) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gpu": "NVIDIA L40"}, "for GPU NVIDIA L40, found one in the bundle for GPU NVIDIA L4"),
        ({"compute_capability": "9.0"}, "for compute capability 9.0, found"),
        ({"version": "11.4.0.106"}, "version 11.4.0.106, found one in the bundle for version 10"),
        ({"flags": []}, "for flags none, found one in the bundle for flags FP16, TF32"),
        ({"workspace_mib": 7}, "for workspace of MiB 7, found"),
    ],
)
def test_each_part_that_differs_is_named_and_nothing_else_fits(
    manifest: Manifest, changes: dict[str, Any], says: str
) -> None:
    wanted = msgspec.structs.replace(key_of(manifest), **changes)
    assert fitting(manifest.engines, "add", wanted) is None
    assert says in misfit(manifest.engines, "add", wanted)


def test_the_nearest_one_is_spoken_of(manifest: Manifest) -> None:
    (engine,) = manifest.engines
    far = msgspec.structs.replace(engine.key, gpu="NVIDIA A2", version="9.9", flags=[])
    wanted = msgspec.structs.replace(engine.key, gpu="NVIDIA L40")
    both = [msgspec.structs.replace(engine, key=far), engine]
    said = misfit(both, "add", wanted)
    assert "for GPU NVIDIA L4, and 1 that fit no better" in said


def test_a_graph_for_which_there_is_none_is_no_misfit(manifest: Manifest) -> None:
    assert misfit(manifest.engines, "other", key_of(manifest)) == ""


def test_bounds_and_graph_are_parts_of_the_key(manifest: Manifest) -> None:
    graph = msgspec.structs.replace(manifest.graphs["add"], dynamic={"N": Range(1, 2, 3)})
    bounded = msgspec.structs.replace(manifest, graphs={"add": graph})
    other = [
        FileEntry(one.path, one.size_bytes, "1" * 64) if one.path.endswith(".onnx") else one
        for one in manifest.files
    ]
    changed = msgspec.structs.replace(manifest, files=other)
    for one in (bounded, changed):
        wanted = engine_key(one, one.graphs["add"], RUNG, HOST, ["FP16", "TF32"], 1024)
        assert fitting(manifest.engines, "add", wanted) is None


# --- who is to blame ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["EngineRefused", "DIED", "TIMED_OUT", "MEMORY_LIMIT"])
def test_what_an_engine_may_cause_is_blamed_on_it(code: str) -> None:
    assert blames_engine(code)


@pytest.mark.parametrize("code", ["RungUnavailable", "NoDevice", "DeviceError", "SPAWN_FAILED"])
def test_what_the_host_lacks_is_not(code: str) -> None:
    assert not blames_engine(code)
