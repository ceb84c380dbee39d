"""Small valid bundles with right goldens, real keys and real trust folders, for every test.

>>> author = sign_key(tmp_path)
>>> bundle = make_bundle(tmp_path, author, name="adder", version="1.0.0", sequence=1)
>>> trust = make_trust_folder(tmp_path / "trust", author)

The graph takes `x`, FP32[batch, 4], and gives `y`: the same (`identity`) or `constant` more
(`add`), so that two versions can be told apart by their answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from superbrain.bundle.archive import VerifiedBundle, open_bundle
from superbrain.bundle.folder import BuiltBundle, build
from superbrain.bundle.keys import (
    KeyKind,
    SigningKey,
    generate_key,
    load_public_key,
    load_signing_key,
)
from superbrain.domain.trust import PublicKey, Trust
from tests.support.torch_graphs import save_source

WIDTH = 4
MAX_BATCH = 8
CASE_BATCHES = {"one": 1, "three": 3}
Array = np.ndarray[Any, np.dtype[Any]]


class KeyPair(msgspec.Struct, frozen=True):
    """A key pair on disk, loaded."""

    private: Path
    public: Path
    signing: SigningKey

    @property
    def key_id(self) -> str:
        return self.signing.key_id

    @property
    def trusted(self) -> PublicKey:
        return load_public_key(self.public)


def sign_key(folder: Path, name: str = "author", kind: KeyKind = "ed25519") -> KeyPair:
    """Make a key pair in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = generate_key(folder, name, kind)
    return KeyPair(files.private, files.public, load_signing_key(files.private))


def trust_in(*keys: KeyPair, threshold: int = 1) -> Trust:
    """Trust these keys, without a folder."""
    return Trust(keys=tuple(key.trusted for key in keys), threshold=threshold)


def make_trust_folder(folder: Path, *keys: KeyPair, threshold: int = 1) -> Path:
    """Make a trust folder that `read_trust_folder` accepts."""
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    for key in keys:
        shutil.copy(key.public, folder / "keys")
    (folder / "trust.toml").write_text(f"threshold = {threshold}\n")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def make_bundle_folder(
    parent: Path,
    *,
    name: str = "adder",
    version: str = "1.0.0",
    sequence: int = 1,
    graph: Literal["add", "identity"] = "add",
    constant: float = 1.0,
    pipeline: str = "",
    golden_error: float = 0.0,
    ladder: Sequence[str] = ("onnxruntime:cpu",),
    more: str = "",
    serving: str = "",
    targets: str = "",
    precisions: Sequence[str] = (),
    native: bool = False,
) -> Path:
    """Make an author's folder `parent`/NAME-VERSION with graph, bundle.toml and goldens.

    Args:
        parent: where to make it.
        name: the model's name.
        version: its version.
        sequence: its sequence number.
        graph: what it computes.
        constant: how much `add` adds.
        pipeline: the source of code/pipeline.py; empty for none.
        golden_error: is added to every expected output, to make a bundle that does not prove.
        ladder: the rungs.
        serving: lines of TOML for [serving].
        targets: more lines of TOML for [targets].
        precisions: for each of these the same graph once more, in a file of its own.
        native: whether the graph is TorchScript, which takes PyTorch to make, instead of ONNX.
        more: more lines of TOML at the top of bundle.toml, such as `expires = …`.
    """
    folder = parent / f"{name}-{version}"
    added = constant if graph == "add" else 0.0
    path = folder / ("graphs/main.pt" if native else "graphs/main.onnx")
    if native:
        save_source(path, _NATIVE.format(constant=added))
    else:
        save_graph(path, graph, added)
    for precision in precisions:
        shutil.copy(folder / "graphs/main.onnx", folder / f"graphs/main.{precision}.onnx")
    files = ", ".join(f'{one} = "graphs/main.{one}.onnx"' for one in precisions)
    for case, batch in CASE_BATCHES.items():
        x = _input(batch)
        _save(folder / "golden" / case / "request" / "x.npy", x)
        y = x + np.float32(added) + np.float32(golden_error)
        _save(folder / "golden" / case / "response" / "y.npy", y)
    if pipeline:
        (folder / "code").mkdir()
        (folder / "code" / "pipeline.py").write_text(pipeline)
    (folder / "bundle.toml").write_text(
        _RECIPE.format(
            name=name,
            version=version,
            sequence=sequence,
            ladder=list(ladder),
            more=more,
            path=path.relative_to(folder),
            serving=serving,
            targets=targets,
            precisions=f"precisions = {{ {files} }}" if files else "",
            max_batch=MAX_BATCH,
            width=WIDTH,
        )
    )
    return folder


def build_bundle(folder: Path, *keys: KeyPair, target: Path | None = None) -> BuiltBundle:
    """Build and sign an author's folder; into its parent unless `target` is given."""
    return build(folder, [key.signing for key in keys], target or folder.parent)


def make_bundle(
    parent: Path,
    *keys: KeyPair,
    target: Path | None = None,
    **options: Any,  # noqa: ANN401 - what make_bundle_folder takes
) -> BuiltBundle:
    """Make a folder as `make_bundle_folder` does, build and sign it."""
    return build_bundle(make_bundle_folder(parent, **options), *keys, target=target)


def verified(bundle: BuiltBundle, *keys: KeyPair) -> VerifiedBundle:
    """Open a bundle file, trusting `keys`."""
    with bundle.path.open("rb") as file:
        return open_bundle(file, trust_in(*keys))


def save_graph(path: Path, graph: Literal["add", "identity"], constant: float) -> None:
    """Write the ONNX file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape: list[str | int | None] = ["batch", WIDTH]
    node = helper.make_node("Identity", ["x"], ["y"])
    initializers = []
    if graph == "add":
        node = helper.make_node("Add", ["x", "constant"], ["y"])
        initializers = [numpy_helper.from_array(np.array([constant], np.float32), "constant")]
    model = helper.make_model(
        helper.make_graph(
            [node],
            "main",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            initializers,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)


def _input(batch: int) -> Array:
    return np.arange(batch * WIDTH, dtype=np.float32).reshape(batch, WIDTH) / 8 - 1


def _save(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


_NATIVE = """\
def forward(self, x: Tensor) -> Dict[str, Tensor]:
    return {{"y": x + {constant!r}}}
"""
_RECIPE = """\
schema = 1
name = "{name}"
version = "{version}"
sequence = {sequence}
created = 2025-01-31T12:00:00Z
description = "Adds a constant."
ladder = {ladder}
{more}

[targets]
onnxruntime = ">=1.24"
{targets}

[graphs.main]
path = "{path}"
inputs = [{{ name = "x", datatype = "FP32", shape = ["batch", {width}] }}]
outputs = [{{ name = "y", datatype = "FP32", shape = ["batch", {width}] }}]
dynamic = {{ batch = {{ min = 1, opt = 1, max = {max_batch} }} }}
{precisions}

[interface]
inputs = [{{ name = "x", datatype = "FP32", shape = [-1, {width}] }}]
outputs = [{{ name = "y", datatype = "FP32", shape = [-1, {width}] }}]

[serving]
{serving}

[golden.tolerances]
y = {{ kind = "close", rtol = 1e-5, atol = 1e-6 }}
"""
