"""`superbrain bundle init MODEL.onnx`: a folder to make a bundle from, out of one ONNX file.

The file is opened with ONNX Runtime, and everything it says of itself is written down: what is
left to the author are the name, real bounds for dynamic sizes, and golden cases. No case is made
up: random input proves little, and an author has better.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from superbrain.bundle.folder import RECIPE_NAME, read_recipe
from superbrain.cli.recipe_text import named_tensors, pipeline_text, plain_name, recipe_text
from superbrain.domain.errors import RecipeError
from superbrain.domain.graph_rules import NAME
from superbrain.engines.onnx_files import external_files
from superbrain.engines.onnxruntime import GraphFacts, look_at
from superbrain.serve.recording import draft_manifest

_EXAMPLES = """\
examples:
  superbrain bundle init resnet50.onnx                         a folder resnet50, here
  superbrain bundle init det.onnx --name ocr --pipeline        with code/pipeline.py to fill in
  superbrain bundle init det.onnx --directory recipes/ocr
"""

_GOLDEN_README = """\
Golden cases: recorded requests with the answers they must give. A host serves nothing that does
not reproduce every one of them, so they decide what "works" means. Take real ones: an ordinary
request, a large one, a difficult one, and one with a rare answer.

Each case is a folder with one file for every input of the interface:

    golden/CASE/request/NAME.npy     numbers, saved with numpy.save
    golden/CASE/request/NAME.jpg     BYTES with shape []: the file itself, of whatever kind
    golden/CASE/request/NAME.json    BYTES with sizes: ["text", {"base64": "AAE="}]

Put the requests there, or name them:

    superbrain bundle record-golden . --case ordinary --input NAME=FILE

then `superbrain bundle record-golden .` answers them all on ONNX Runtime and writes the responses.
Look at these answers: they are what every host will be held to.
"""


def register_init(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `bundle init`."""
    parser = actions.add_parser(
        "init",
        help="start a bundle from an ONNX file",
        description="Make a folder with a complete, commented bundle.toml from an ONNX file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the graph to serve")
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="the folder to make (NAME, here)"
    )
    parser.add_argument("--name", metavar="NAME", help="the bundle's name (from the file's name)")
    parser.add_argument(
        "--pipeline", action="store_true", help="also write a code/pipeline.py to fill in"
    )
    parser.set_defaults(run=run_init)


def run_init(args: argparse.Namespace) -> int:
    """Make the folder and say what comes next."""
    name = args.name or plain_name(args.model.stem)
    folder: Path = args.directory or Path(name)
    if (folder / RECIPE_NAME).exists():
        raise RecipeError(
            f"{folder}: expected no bundle there yet, found {RECIPE_NAME}",
            reason="RECIPE_EXISTS",
            mend="Choose another --directory",
        )
    if not NAME.fullmatch(name):
        raise RecipeError(
            f"expected a name of 1-64 of a-z 0-9 . _ - that starts with a letter or digit, "
            f"found {name!r}",
            reason="RECIPE_NAME",
            mend="Give another --name",
        )
    weights = _weights_beside(args.model)
    facts = look_at(args.model)
    graph_path = _copy_graph(args.model, weights, folder)
    _write_texts(folder, name, graph_path, facts, with_pipeline=args.pipeline)
    read_recipe(folder)
    draft_manifest(folder)
    _say_what_was_made(folder, facts, [graph_path, *(f"graphs/{one}" for one in weights)])
    return 0


def _weights_beside(model: Path) -> list[str]:
    """The files that hold the graph's weights; only those beside it or below can be bundled."""
    weights = external_files(model)
    for location in weights:
        path = PurePosixPath(location)
        if path.is_absolute() or ".." in path.parts:
            raise RecipeError(
                f"{model}: expected its weights in the folder of the graph, found {location!r}",
                reason="RECIPE_WEIGHTS",
                mend="Save the model again with its external data beside it",
            )
    return weights


def _copy_graph(model: Path, weights: list[str], folder: Path) -> str:
    target = folder / "graphs"
    target.mkdir(parents=True, exist_ok=True)
    for location in weights:
        (target / location).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.parent / location, target / location)
    path = f"graphs/{plain_name(model.stem)}.onnx"
    shutil.copyfile(model, folder / path)
    return path


def _write_texts(
    folder: Path, name: str, graph_path: str, facts: GraphFacts, *, with_pipeline: bool
) -> None:
    inputs, outputs = named_tensors(facts.inputs), named_tensors(facts.outputs)
    recipe = recipe_text(
        name=name,
        created=dt.datetime.now(dt.UTC),
        graph=Path(graph_path).stem,
        path=graph_path,
        inputs=inputs,
        outputs=outputs,
    )
    (folder / RECIPE_NAME).write_text(recipe, encoding="utf-8")
    (folder / "golden").mkdir(exist_ok=True)
    (folder / "golden/README.md").write_text(_GOLDEN_README, encoding="utf-8")
    if with_pipeline:
        (folder / "code").mkdir(exist_ok=True)
        (folder / "code/pipeline.py").write_text(pipeline_text(inputs, outputs), encoding="utf-8")


def _say_what_was_made(folder: Path, facts: GraphFacts, graphs: list[str]) -> None:
    for path in [RECIPE_NAME, *graphs, "code/pipeline.py", "golden/README.md"]:
        if (folder / path).exists():
            print(f"made     {folder / path}")
    if facts.metadata:
        print(f"metadata {', '.join(sorted(facts.metadata))}")
    first = facts.inputs[0].name
    print(f"next     edit {folder / RECIPE_NAME}: bounds, tolerances, description")
    print(f"         superbrain bundle record-golden {folder} --case first --input {first}=FILE")
    print(f"         superbrain bundle prove {folder}")
    print(f"         superbrain bundle build {folder} --key FILE.key")
