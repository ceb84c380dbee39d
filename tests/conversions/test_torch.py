"""PyTorch in every form: from a checkpoint to a daemon that answers as it does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from superbrain.bundle.folder import read_folder
from superbrain.serve.trial import try_rung
from tests.conversions.author import Author, make
from tests.support.appliance import Appliance
from tests.support.documents import ROOT
from tests.support.networks import turned

IMAGE = (
    *("--input", "image=float32[batch,3,height,24]", "--values", "image=0:1"),
    *("--dynamic", "batch=1:3:16", "--dynamic", "height=8:24:48"),
)
VECTOR = ("--input", "x=float32[batch,4]", "--samples", "vectors.npy")
FORMS = {
    "script": ("script.pt", *IMAGE),
    "safetensors, native": ("nets:make_net", "--weights", "net.safetensors", "--native", *IMAGE),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("torch", tmp_path_factory.mktemp("torch"))


def test_every_line_of_the_walk_from_pytorch_does_what_it_says(author: Author) -> None:
    said = author.walk("from-pytorch.md", "torch")
    assert "kept     onnxruntime:cpu-fp16" in said


@pytest.mark.parametrize("form", FORMS)
def test_the_daemon_answers_as_the_torch_model_does(author: Author, made: Path, form: str) -> None:
    name = f"torch-{form.replace(', ', '-')}"
    folder = author.converted(name, *FORMS[form], where=made)
    author.serve(folder)
    author.assert_answers(folder, made)


def test_texts_of_any_length_are_answered_as_by_the_transformer(author: Author, made: Path) -> None:
    folder = author.converted(
        "torch-tokens",
        *("nets:make_tokens", "--weights", "tokens.ckpt"),
        *("--input", "ids=int64[batch,length]", "--input", "mask=int64[batch,length]"),
        *("--values", "ids=0:99", "--values", "mask=1:1", "--outputs", "vector"),
        *("--dynamic", "batch=1:2:4", "--dynamic", "length=1:9:32"),
        where=made,
    )
    author.serve(folder)
    author.assert_answers(folder, made / "tokens")


def test_an_exported_program_is_served_and_another_layout_of_it_is_refused_both_ways(
    author: Author, made: Path
) -> None:
    words = ("net.pt2", "--values", "image=0:1")
    right = author.converted("torch-exported", *words, where=made)
    author.serve(right)
    author.assert_answers(right, made)
    graph = right / "graphs/model.onnx"
    wrong = turned(graph, author.folder / "wrong.onnx")
    target = author.folder / "torch-wrong"
    against = ("--against", *words, "--output", str(target))
    code, said = author.convert(str(wrong), *against, where=made)
    assert (code, said["error"]["code"], target.exists()) == (4, "PARITY", False)
    forced = called(right, author.folder / "torch-forced")
    shutil.copy(wrong, forced / "graphs/model.onnx")
    author.drop(forced)
    author.appliance.wait_ended("torch-forced", "0.1.0", "REJECTED")


def test_a_model_that_never_answers_twice_the_same_is_refused(author: Author, made: Path) -> None:
    code, said = author.convert("nets:make_restless", "--input", "x=float32[batch,64]", where=made)
    assert (code, said["error"]["code"]) == (4, "PARITY_REPEAT")


def test_weights_of_another_module_are_named_as_such(author: Author, made: Path) -> None:
    words = ("--weights", "net.pth", "--input", "ids=int64[batch,4]", "--values", "ids=0:9")
    code, said = author.convert("nets:make_tokens", *words, where=made)
    assert (code, said["error"]["code"]) == (1, "FRAMEWORK_LOAD")
    assert "embedding.weight" in said["error"]["message"]


# --- the native rung ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def native(made: Path, appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder with a script whose loop the values end."""
    author = Author(tmp_path_factory.mktemp("native"), appliance)
    return author.converted("torch-halving", "halving.pt", "--native", *VECTOR, where=made)


def test_a_loop_that_the_values_end_goes_into_onnx_as_it_is(author: Author, made: Path) -> None:
    folder = author.converted("torch-loop", "halving.pt", *VECTOR, where=made)
    steps = {int(np.load(path)[0]) for path in folder.glob("golden/*/response/steps.npy")}
    assert len(steps) > 1


def test_a_script_is_served_as_it_is_where_pytorch_is(
    author: Author, made: Path, native: Path
) -> None:
    manifest = read_folder(native)
    assert (manifest.ladder, manifest.targets.onnxruntime) == (["torchscript:cpu"], "")
    author.serve(native)
    author.assert_answers(native, made / "halving")
    without = try_rung(native, manifest, "torchscript:cpu")  # this Python has no PyTorch
    assert "expected the package torch" in without.reason
    assert "pip install 'superbrain[cpu,torch]'" in without.mend


def test_a_script_that_onnx_cannot_say_is_offered_the_native_rung(
    author: Author, made: Path
) -> None:
    words = ("--input", "x=float32[batch,3,3]")
    code, said = author.convert("spectrum.pt", *words, where=made)
    assert (code, said["error"]["code"]) == (1, "FRAMEWORK_EXPORT")
    assert "--native" in said["error"]["mend"]


def test_a_script_that_reads_what_is_not_its_own_is_refused_by_the_host(
    author: Author, made: Path, native: Path
) -> None:
    folder = called(native, author.folder / "torch-reader")
    shutil.copy(made / "reader.pt", folder / "graphs/model.pt")
    author.drop(folder)
    ended = author.appliance.wait_ended("torch-reader", "0.1.0", "REJECTED")
    assert "ermission denied" in ended.detail


def test_a_native_graph_that_answers_otherwise_is_rejected_by_the_host(
    author: Author, native: Path
) -> None:
    folder = called(native, author.folder / "torch-drifts")
    for path in folder.glob("golden/*/response/y.npy"):
        np.save(path, np.load(path) * np.float32(1.01))
    author.drop(folder)
    author.appliance.wait_ended("torch-drifts", "0.1.0", "REJECTED")


def called(folder: Path, target: Path) -> Path:
    """Copy a bundle's folder, and call it as its new place."""
    shutil.copytree(folder, target)
    recipe = target / "bundle.toml"
    recipe.write_text(recipe.read_text().replace(f'"{folder.name}"', f'"{target.name}"'))
    return target


def test_torchscript_keeps_the_contract_of_engines(torch_python: str) -> None:
    tests = ("tests/unit/engines/test_engine_contract.py", "tests/unit/engines/test_torchscript.py")
    done = subprocess.run(
        [torch_python, "-m", "pytest", *tests, "-k", "torchscript", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 55, done.stdout[-500:]
