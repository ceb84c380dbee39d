"""docs/bundle-format.md says what the code does: its reader reads, its example and codes exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature

import superbrain
from superbrain.bundle.folder import Recipe
from superbrain.bundle.signing import PAYLOAD_TYPE
from superbrain.domain.manifest_rules import SERVING_BOUNDS
from superbrain.domain.tensor_fit import TensorSet
from superbrain.serve.bundle_code import MAX_PIXELS, PIXELS_VARIABLE
from superbrain.serve.conversion import ResponseConversion
from tests.support.bundles import build_bundle, make_bundle_folder, sign_key

SOURCE = Path(superbrain.__file__).parent
DOCUMENT = (SOURCE.parents[1] / "docs" / "bundle-format.md").read_text()
Reader = Callable[[Path, bytes], tuple[dict[str, Any], dict[str, bytes]]]


def printed(language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return next(block for block in blocks if containing in block)


@pytest.fixture
def read_bundle() -> Reader:
    names: dict[str, Any] = {}
    exec(printed("python", "def read_bundle"), names)
    reader: Reader = names["read_bundle"]
    return reader


def test_the_printed_reader_reads_a_bundle(tmp_path: Path, read_bundle: Reader) -> None:
    key = sign_key(tmp_path)
    folder = make_bundle_folder(tmp_path)
    asset = folder / "assets" / ("d" * 60) / ("f" * 80)
    asset.parent.mkdir(parents=True)
    asset.write_text("a path longer than a hundred characters")
    built = build_bundle(folder, key)
    manifest, contents = read_bundle(built.path, key.public.read_bytes())
    assert manifest == msgspec.to_builtins(built.manifest, builtin_types=()) | {
        "created": manifest["created"]
    }
    assert contents == {path: (folder / path).read_bytes() for path in contents}
    assert list(contents) == [entry.path for entry in built.manifest.files]


def test_the_printed_reader_refuses_another_signer(tmp_path: Path, read_bundle: Reader) -> None:
    built = build_bundle(make_bundle_folder(tmp_path), sign_key(tmp_path))
    with pytest.raises(InvalidSignature):
        read_bundle(built.path, sign_key(tmp_path, "other").public.read_bytes())


def test_the_printed_recipe_is_one() -> None:
    recipe = msgspec.convert(tomllib.loads(printed("toml", "schema = 1")), Recipe)
    assert recipe.name == "orientation"


@pytest.fixture
def printed_pipeline() -> Any:  # noqa: ANN401 - bundle code has no types for the checker
    names: dict[str, Any] = {}
    exec(printed("python", "class Pipeline"), names)
    return names["Pipeline"](SimpleNamespace(text=lambda _: "0 90 180 270"))


def test_the_printed_pipeline_fits_the_printed_recipe(printed_pipeline: Any) -> None:  # noqa: ANN401
    recipe = msgspec.convert(tomllib.loads(printed("toml", "schema = 1")), Recipe)
    page = cv2.imencode(".png", np.zeros((40, 30, 3), np.uint8))[1].tobytes()
    request = {"image": page}
    inputs = printed_pipeline.preprocess(request)
    response = printed_pipeline.postprocess({"y": np.array([[0, 0, 1, 0]], np.float32)}, request)
    (graph,) = recipe.graphs.values()
    assert TensorSet("graph input", graph.inputs, graph.dynamic).misfit(inputs) == ""
    answer = ResponseConversion(recipe.interface.outputs)(response)
    assert (answer["label"].item(), answer["confidence"].item()) == (b"180", 1.0)


@pytest.mark.parametrize("file", [b"", b"hello"])
def test_the_printed_pipeline_refuses_what_is_no_image(printed_pipeline: Any, file: bytes) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="image: expected a JPEG or PNG file"):
        printed_pipeline.preprocess({"image": file})


def test_the_bound_of_images_is_printed() -> None:
    assert MAX_PIXELS == 1 << 28
    assert "more than 2^28 pixels" in DOCUMENT
    assert f"`{PIXELS_VARIABLE}`" in DOCUMENT


def test_the_payload_type_is_printed_with_its_length() -> None:
    assert f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE}" in DOCUMENT


@pytest.mark.parametrize("field", SERVING_BOUNDS)
def test_the_bounds_of_serving_are_printed(field: str) -> None:
    least, most = SERVING_BOUNDS[field]
    assert f"| `{field}` | {least}–{most:,} |" in DOCUMENT


def codes() -> set[str]:
    kinds = "MANIFEST|ARCHIVE|STORE|SOURCE|TRUST|KEY|SIGNATURE|ENVELOPE|BUNDLE|SEQUENCE|RECIPE"
    pattern = re.compile(rf'"((?:{kinds}|TENSOR)_[A-Z0-9_]+|INCOMPLETE|EXPIRED)"')
    folders = ("bundle", "domain")
    sources = [path for folder in folders for path in (SOURCE / folder).glob("*.py")]
    sources += [SOURCE / "cli" / f"author_{name}.py" for name in ("bundle", "key")]
    return {code for path in sources for code in pattern.findall(path.read_text())}


@pytest.mark.parametrize("code", sorted(codes()))
def test_every_code_is_explained(code: str) -> None:
    assert f"`{code}`" in DOCUMENT
