"""Author's folders: what goes into a bundle, and what an author is told."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from superbrain.bundle.folder import build, collect_files, read_folder, read_recipe
from superbrain.domain.errors import (
    BundleError,
    ManifestError,
    RecipeError,
    SignatureRefused,
    TensorFileError,
)
from tests.support.bundles import (
    build_bundle,
    make_bundle_folder,
    sign_key,
    verified,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle_folder(tmp_path)


def refusal(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        read_folder(folder)
    return caught.value


def edit(folder: Path, old: str, new: str) -> None:
    recipe = folder / "bundle.toml"
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new, 1))


def test_the_manifest_says_what_the_folder_says(folder: Path) -> None:
    manifest = read_folder(folder)
    assert (manifest.name, manifest.version, manifest.sequence) == ("adder", "1.0.0", 1)
    assert [case.name for case in manifest.golden.cases] == ["one", "three"]
    assert [entry.path for entry in manifest.files] == sorted(collect_files(folder))


def test_what_was_built_is_what_a_reader_verifies(folder: Path, tmp_path: Path) -> None:
    key = sign_key(tmp_path)
    built = build_bundle(folder, key)
    bundle = verified(built, key)
    assert (bundle.digest, bundle.manifest) == (built.digest, built.manifest)
    assert built.path.name == "adder-1.0.0.sbb"


def test_two_keys_sign_one_bundle(folder: Path, tmp_path: Path) -> None:
    first, second = sign_key(tmp_path, "first"), sign_key(tmp_path, "second", "p256")
    assert set(build_bundle(folder, first, second).signers) == {first.key_id, second.key_id}


def test_building_without_a_key_is_refused(folder: Path) -> None:
    with pytest.raises(SignatureRefused):
        build(folder, [], folder.parent)


@pytest.mark.parametrize(
    "name",
    ["assets/README.md", "assets/.git/config", "code/__pycache__/x.pyc", "notes.txt", "train.py"],
)
def test_what_is_no_part_of_the_bundle_is_left_out(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    assert name not in collect_files(folder)


def test_a_symbolic_link_is_refused(folder: Path) -> None:
    (folder / "assets").mkdir()
    (folder / "assets" / "labels.txt").symlink_to("/etc/hostname")
    error = refusal(folder)
    assert (error.reason, "symbolic link" in error.message) == ("RECIPE_NOT_REGULAR", True)


def test_a_folder_that_is_a_symbolic_link_is_refused(folder: Path) -> None:
    (folder / "assets").symlink_to("/etc")
    assert refusal(folder).reason == "RECIPE_NOT_REGULAR"


def test_a_fifo_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "graphs" / "pipe")
    assert refusal(folder).reason == "RECIPE_NOT_REGULAR"


def test_a_misspelt_key_is_refused_with_a_suggestion(folder: Path) -> None:
    edit(folder, "description =", "descripton =")
    error = refusal(folder)
    assert (error.reason, error.mend) == ("RECIPE_FIELD", "Did you mean description?")


def test_a_misspelt_key_inside_a_table_is_refused_with_a_suggestion(folder: Path) -> None:
    edit(folder, "datatype", "dtype_")
    assert "datatype" in refusal(folder).mend


def test_a_key_like_no_other_is_refused(folder: Path) -> None:
    edit(folder, "description =", "zzzzz =")
    assert "Remove 'zzzzz'" in refusal(folder).mend


def test_a_value_of_another_type_is_refused(folder: Path) -> None:
    edit(folder, "sequence = 1", 'sequence = "1"')
    error = refusal(folder)
    assert (error.reason, "$.sequence" in error.message) == ("RECIPE_FIELD", True)


@pytest.mark.parametrize("text", ["= 1", "name = 'a'\nname = 'b'", "\x00"])
def test_what_is_no_toml_is_refused(folder: Path, text: str) -> None:
    (folder / "bundle.toml").write_text(text)
    assert refusal(folder).reason == "RECIPE_NOT_TOML"


def test_a_folder_without_bundle_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(tmp_path)
    assert caught.value.reason == "RECIPE_MISSING"


def test_a_time_without_its_zone_is_refused(folder: Path) -> None:
    edit(folder, "12:00:00Z", "12:00:00")
    assert refusal(folder).reason == "MANIFEST_DATE"


def test_a_case_without_its_response_is_refused(folder: Path) -> None:
    (folder / "golden/one/response/y.npy").unlink()
    error = refusal(folder)
    assert isinstance(error, ManifestError)
    assert "record-golden" in error.mend


def test_a_golden_of_another_shape_is_refused(folder: Path) -> None:
    np.save(folder / "golden/one/request/x.npy", np.zeros((1, 5), np.float32))
    assert isinstance(refusal(folder), TensorFileError)


@pytest.mark.parametrize(
    "name", ["golden/x.npy", "golden/one/x.npy", "golden/one/graphs/main/x.npy"]
)
def test_a_golden_file_in_no_known_place_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    assert refusal(folder).reason == "RECIPE_GOLDEN"


def test_two_files_for_one_tensor_are_refused(folder: Path) -> None:
    (folder / "golden/one/request/x.txt").write_text("x")
    assert refusal(folder).reason == "RECIPE_GOLDEN"


def test_recorded_graphs_are_found(folder: Path) -> None:
    for kind, name in (("inputs", "x"), ("outputs", "y")):
        place = folder / "golden/one/graphs/main" / kind
        place.mkdir(parents=True)
        np.save(place / f"{name}.npy", np.zeros((1, 4), np.float32))
    with (folder / "bundle.toml").open("a") as recipe:
        recipe.write('[golden.graph_tolerances.main]\ny = { kind = "exact" }\n')
    case = read_folder(folder).golden.cases[0]
    assert case.graphs["main"].outputs == {"y": "golden/one/graphs/main/outputs/y.npy"}
