"""`superbrain bundle engines`: from a host's cache into an author's folder, and then signed."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import msgspec
import pytest

from superbrain.bundle.archive import open_bundle
from superbrain.bundle.engine_cache import EngineCache
from superbrain.bundle.folder import read_folder
from superbrain.cli import author_bundle, author_commands
from superbrain.domain.engine import EngineHost, EngineKey, engine_key, timing_key
from superbrain.domain.errors import RecipeError
from superbrain.domain.manifest import CarriedEngine, Manifest
from tests.support.bundles import KeyPair, make_bundle_folder, sign_key, trust_in

RUNG = "tensorrt:fp32"
HOST = EngineHost("tensorrt", "10.16.1.11", "NVIDIA L4", "8.9", "580.65.06", "13.0")


def superbrain(*words: object) -> int:
    parser = argparse.ArgumentParser(prog="superbrain")
    commands = parser.add_subparsers(required=True)
    author_bundle.register(author_commands.register(commands))
    args = parser.parse_args([str(word) for word in words])
    code: int = args.run(args)
    return code


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_bundle_folder(tmp_path / "work", ladder=[RUNG, "onnxruntime:cpu"])


@pytest.fixture
def cache(tmp_path: Path, source: Path) -> Path:
    """A host's cache: two engines of the folder's graph, what was measured, another's engine."""
    root = tmp_path / "engines"
    kept = EngineCache(root, 1 << 30)
    built = tmp_path / "built"
    manifest = read_folder(source)
    other = msgspec.structs.replace(HOST, gpu="NVIDIA L40")
    keys = [key_for(manifest, HOST), key_for(manifest, other), timing_key(HOST)]
    keys.append(msgspec.structs.replace(keys[0], graph="0" * 64))
    for number, key in enumerate(keys):
        built.write_bytes(b"engine %d" % number)
        kept.put(key, built, HOST, 1.0)
    (root / "surveys.json").write_text("{}")
    return root


def key_for(manifest: Manifest, host: EngineHost) -> EngineKey:
    return engine_key(manifest, manifest.graphs["main"], RUNG, host, ["STRONGLY_TYPED"], 1024)


def taken(source: Path, cache: Path) -> Path:
    """Take them; the file of one."""
    assert superbrain("bundle", "engines", source, "--from", cache, "--json") == 0
    return min(source.glob("engines/*/engine"))


def test_it_takes_what_fits_and_passes_over_the_rest(
    source: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken(source, cache)
    said = json.loads(capsys.readouterr().out)
    assert (said["taken"], said["passed_over"]) == (2, 2)
    assert {one["gpu"] for one in said["engines"]} == {"NVIDIA L4", "NVIDIA L40"}
    assert {one["rung"] for one in said["engines"]} == {RUNG}
    assert {(one["driver"], one["cuda"]) for one in said["engines"]} == {("580.65.06", "13.0")}


def test_taking_again_changes_nothing(source: Path, cache: Path) -> None:
    taken(source, cache)
    before = read_folder(source)
    taken(source, cache)
    assert read_folder(source) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_takes_belongs_to_whom_the_folder_belongs(source: Path, cache: Path) -> None:
    os.chown(source, 4321, 4321)
    engine = taken(source, cache)
    made = (source / "engines", engine.parent, engine, engine.with_name("record.json"))
    assert {path.stat().st_uid for path in made} == {4321}


def test_a_table_tells_for_whom_they_are(
    source: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert superbrain("bundle", "engines", source, "--from", cache) == 0
    said = capsys.readouterr().out
    assert "2 taken; 2 other entries passed over" in said
    assert "NVIDIA L40" in said
    assert "driver 580.65.06, CUDA 13.0" in said


def test_a_folder_without_engines_says_what_follows(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert superbrain("bundle", "engines", source) == 0
    assert "every host builds its own" in capsys.readouterr().out


def test_what_was_taken_is_signed_with_the_rest_and_its_record_stays_outside(
    tmp_path: Path, source: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    author: KeyPair = sign_key(tmp_path)
    taken(source, cache)
    out = ("-o", tmp_path)
    assert superbrain("bundle", "build", source, "--key", author.private, *out) == 0
    path = tmp_path / "adder-1.0.0.sbb"
    folder = read_folder(source)
    assert len(folder.engines) == 2
    assert all(isinstance(one, CarriedEngine) for one in folder.engines)
    assert not [one.path for one in folder.files if one.path.endswith("record.json")]
    assert superbrain("bundle", "inspect", path) == 0
    assert "NVIDIA L40" in capsys.readouterr().out
    with path.open("rb") as file:
        assert open_bundle(file, trust_in(author)).manifest == folder


# --- what is wrong --------------------------------------------------------------------------------


def refusal(source: Path, *words: object) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        superbrain("bundle", "engines", source, *words)
    assert caught.value.reason == "RECIPE_ENGINE"
    return caught.value


def test_a_cache_with_nothing_of_this_bundle(source: Path, cache: Path, tmp_path: Path) -> None:
    other = make_bundle_folder(tmp_path / "other", constant=2.0, ladder=[RUNG])
    error = refusal(other, "--from", cache)
    assert "found 4 entries that are none" in error.message
    assert "Drop this bundle on that host first" in error.mend
    assert source.exists()


def test_a_ladder_without_such_a_rung_takes_none(cache: Path, tmp_path: Path) -> None:
    refusal(make_bundle_folder(tmp_path / "other"), "--from", cache)


def test_a_folder_that_is_no_cache(source: Path, tmp_path: Path) -> None:
    assert "expected the engine cache" in refusal(source, "--from", tmp_path / "nowhere").message


def test_a_damaged_engine_in_the_cache_is_not_taken(source: Path, cache: Path) -> None:
    for path in cache.glob("*/engine"):
        path.chmod(0o644)
        path.write_bytes(b"something else")
    assert "found other bytes" in refusal(source, "--from", cache).message
    assert not list(source.glob("engines/*"))
    assert not list(source.glob("engines/.*"))


def test_an_engine_that_was_changed_in_the_folder(source: Path, cache: Path) -> None:
    path = taken(source, cache)
    path.chmod(0o644)
    path.write_bytes(b"something else")
    assert "found other bytes" in refusal(source).message


def test_an_engine_without_its_record(source: Path, cache: Path) -> None:
    taken(source, cache).with_name("record.json").unlink()
    assert "superbrain bundle engines" in refusal(source).mend


def test_a_file_that_is_no_engine(source: Path) -> None:
    (source / "engines").mkdir()
    (source / "engines" / "main.plan").write_bytes(b"by hand")
    assert "found neither" in refusal(source).message


def test_an_engine_of_a_graph_that_has_changed(source: Path, cache: Path) -> None:
    taken(source, cache)
    graph = source / "graphs" / "main.onnx"
    graph.write_bytes(graph.read_bytes() + b"\x00")
    error = refusal(source)
    assert "as it is now" in error.message
    assert "take the engine anew" in error.mend
