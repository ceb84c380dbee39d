"""`superbrain bundle init MODEL.onnx`: a folder to make a bundle from, out of ONNX files.

The file is opened with ONNX Runtime, and everything it says of itself is written down: what is
left to the author are the name, real bounds for dynamic sizes, and golden cases. No case is made
up: random input proves little, and an author has better. With `--template` the folder has working
code around the graph as well, fitted to it by `cli/template`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from superbrain.bundle.disk import whole_or_nothing
from superbrain.bundle.folder import RECIPE_NAME, read_recipe
from superbrain.cli.recipe_text import named_tensors, pipeline_text, plain_name, recipe_text
from superbrain.cli.template.fitting import Fitted, GraphFile
from superbrain.cli.template.recipe import template_recipe
from superbrain.cli.template.registry import TEMPLATES, Template
from superbrain.cli.template.sources import source_of
from superbrain.domain.errors import RecipeError
from superbrain.domain.graph_rules import NAME
from superbrain.engines.onnx_files import external_files, last_operator, rows_looked_up
from superbrain.engines.onnxruntime import look_at
from superbrain.serve.recording import draft_manifest

_EXAMPLES = """\
examples:
  superbrain bundle init resnet50.onnx                         a folder resnet50, here
  superbrain bundle init det.onnx --name ocr --pipeline        with code/pipeline.py to fill in
  superbrain bundle init resnet50.onnx --template classification
  superbrain bundle init --template ocr --graph det=a.onnx --graph rec=b.onnx --name receipts
  superbrain bundle init det.onnx --directory recipes/ocr

templates, with code that works around the graph, fitted to it:
{templates}

After that, change the constants at the top of code/pipeline.py to those of your training.
docs/templates.md tells which, and what goes in and out.
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


_CODE: Final = "code/pipeline.py"


class _Source(NamedTuple):
    """A graph to take: its name in the bundle, its file, and the files that hold its weights."""

    name: str
    model: Path
    weights: list[str]
    folder: str

    @property
    def path(self) -> str:
        return f"{self.folder}/{plain_name(self.name)}.onnx"


def register_init(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `bundle init`."""
    templates = "\n".join(f"  {name:16}{one.summary}" for name, one in TEMPLATES.items())
    parser = actions.add_parser(
        "init",
        help="start a bundle from an ONNX file",
        description="Make a folder with a complete, commented bundle.toml from an ONNX file.",
        epilog=_EXAMPLES.format(templates=templates),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL.onnx", nargs="?", help="the graph to serve"
    )
    parser.add_argument(
        "--graph",
        type=_named_graph,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="instead of MODEL.onnx, for a template of several graphs: one of them",
    )
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="the folder to make (NAME, here)"
    )
    parser.add_argument("--name", metavar="NAME", help="the bundle's name (from the file's name)")
    code = parser.add_mutually_exclusive_group()
    code.add_argument(
        "--template",
        choices=list(TEMPLATES),
        metavar="NAME",
        help=f"with code for graphs of this kind: {', '.join(TEMPLATES)}",
    )
    code.add_argument(
        "--pipeline", action="store_true", help="also write a code/pipeline.py to fill in"
    )
    parser.set_defaults(run=run_init, parser=parser)


def run_init(args: argparse.Namespace) -> int:
    """Make the folder and say what comes next."""
    template = TEMPLATES[args.template] if args.template else None
    models = _models(args, template)
    name = args.name or (plain_name(args.model.stem) if args.model else args.template)
    folder: Path = args.directory or Path(name)
    _check_free(folder, name)
    sources = [_source(one, model, several=len(models) > 1) for one, model in models.items()]
    graphs = {source.name: _look_at(source) for source in sources}
    fitted = template.fit(graphs) if template else None
    with whole_or_nothing(folder):
        for source in sources:
            _copy_graph(source, folder)
        _write_texts(folder, name, graphs, fitted, with_pipeline=args.pipeline)
    read_recipe(folder)
    draft_manifest(folder)
    _say_what_was_made(folder, sources, graphs, fitted)
    return 0


def _named_graph(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not NAME.fullmatch(name) or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=FILE.onnx, found {text!r}")
    return name, Path(path)


def _models(args: argparse.Namespace, template: Template | None) -> dict[str, Path]:
    """Give every graph's file by the graph's name; wrong words end the command."""
    wanted = template.graphs if template else ()
    if not wanted:
        if args.graph or not args.model:
            args.parser.error("expected MODEL.onnx, and --graph only for a template of several")
        return {plain_name(args.model.stem): args.model}
    given = dict(args.graph)
    allowed = {*wanted, *(template.optional_graphs if template else ())}
    if args.model or len(given) != len(args.graph) or not set(wanted) <= set(given) <= allowed:
        words = " ".join(f"--graph {name}=FILE.onnx" for name in wanted)
        args.parser.error(f"--template {args.template} takes {words} and no MODEL.onnx")
    return given


def _check_free(folder: Path, name: str) -> None:
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


def _source(name: str, model: Path, *, several: bool) -> _Source:
    """Graphs with weights outside get a folder each where there are several: names may be alike."""
    weights = _weights_beside(model)
    return _Source(name, model, weights, f"graphs/{name}" if several and weights else "graphs")


def _look_at(source: _Source) -> GraphFile:
    facts = look_at(source.model)
    return GraphFile(
        name=source.name,
        path=source.path,
        inputs=named_tensors(facts.inputs),
        outputs=named_tensors(facts.outputs),
        metadata=facts.metadata,
        last_operator=functools.partial(last_operator, source.model),
        rows_looked_up=functools.partial(rows_looked_up, source.model),
    )


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


def _copy_graph(source: _Source, folder: Path) -> None:
    target = folder / source.folder
    target.mkdir(parents=True, exist_ok=True)
    for location in source.weights:
        (target / location).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.model.parent / location, target / location)
    shutil.copyfile(source.model, folder / source.path)


def _write_texts(
    folder: Path,
    name: str,
    graphs: Mapping[str, GraphFile],
    fitted: Fitted | None,
    *,
    with_pipeline: bool,
) -> None:
    texts = {"golden/README.md": _GOLDEN_README}
    created = dt.datetime.now(dt.UTC)
    if fitted is not None:
        texts[RECIPE_NAME] = template_recipe(name, created, list(graphs.values()), fitted)
        texts |= {f"assets/{asset}": text for asset, text in fitted.assets.items()}
        for file, module in fitted.code.items():
            texts[f"code/{module}"] = source_of(file, fitted.constants.get(module, {}))
    else:
        (graph,) = graphs.values()
        texts[RECIPE_NAME] = recipe_text(
            name=name,
            created=created,
            graph=graph.name,
            path=graph.path,
            inputs=graph.inputs,
            outputs=graph.outputs,
        )
        if with_pipeline:
            texts[_CODE] = pipeline_text(graph.inputs, graph.outputs)
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def _say_what_was_made(
    folder: Path, sources: list[_Source], graphs: Mapping[str, GraphFile], fitted: Fitted | None
) -> None:
    written = [RECIPE_NAME]
    for source in sources:
        written += [source.path, *(f"{source.folder}/{one}" for one in source.weights)]
    code = [f"code/{module}" for module in fitted.code.values()] if fitted else [_CODE]
    assets = [f"assets/{asset}" for asset in fitted.assets] if fitted else []
    for path in [*written, *code, *assets, "golden/README.md"]:
        if (folder / path).exists():
            print(f"made     {folder / path}")
    metadata = sorted({key for graph in graphs.values() for key in graph.metadata})
    if metadata:
        print(f"metadata {', '.join(metadata)}")
    if fitted is not None:
        print(f"next     edit the constants at the top of {folder / _CODE}")
        print("".join(f"         look through {folder / one}\n" for one in assets), end="")
    inputs = fitted.inputs if fitted else next(iter(graphs.values())).inputs
    given = " ".join(f"--input {shlex.quote(f'{tensor.name}=FILE')}" for tensor in inputs)
    place = shlex.quote(str(folder))
    lead = "    " if fitted else "next"
    print(f"{lead}     edit {folder / RECIPE_NAME}: bounds, tolerances, description")
    print(f"         superbrain bundle record-golden {place} --case first {given}")
    print(f"         superbrain bundle prove {place}")
    print(f"         superbrain bundle build {place} --key FILE.key")
