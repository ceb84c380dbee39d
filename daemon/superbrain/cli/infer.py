"""`superbrain infer` and `superbrain models`: ask a model, and see what there is to ask.

Both need the base install alone: the client, and plain text.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from superbrain.cli.infer_answer import answer_json, answer_text, save_outputs
from superbrain.cli.infer_inputs import Given, parse_input, read_inputs
from superbrain.client import Client, CurveKeys, InterfaceTensor, ModelMetadata, ModelSummary
from superbrain.client.arrays import describe
from superbrain.client.endpoint import DEFAULT_ENDPOINT, ENDPOINT_VARIABLE
from superbrain.wire.errors import InvalidArgument

_INFER_EXAMPLES = """\
inputs:
  NAME=FILE.npy      the array in the file, for an input of numbers
  NAME=NUMBER        a number or a JSON list: 0.5, [1, 2, 3]
  NAME=FILE          the bytes of the file, for a BYTES input (an image, a sound)
  NAME:str=TEXT      the text itself, for a BYTES input

examples:
  superbrain infer orientation --input image=page.jpg
  superbrain infer detector --input image=page.png --input threshold=0.5 --output boxes --json
  superbrain infer embedding --input text:str='good morning' --save answers/
  superbrain infer orientation --endpoint tcp://host:5555 --curve-server server.pub \\
      --curve-key camera.key --input image=page.jpg
"""
_MODELS_EXAMPLES = """\
examples:
  superbrain models                    every model, and whether it is ready
  superbrain models orientation        its inputs and outputs
  superbrain models --json | jq -r '.[] | select(.ready) | .name'
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `infer` and `models`."""
    _register_infer(commands)
    _register_models(commands)


def _register_infer(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "infer",
        help="send one request and show the answer",
        description="Send one inference request and show the answer.",
        epilog=_INFER_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="name of the model")
    parser.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        dest="inputs",
        type=parse_typed_input,
        metavar="NAME=VALUE",
        help="one input; see below",
    )
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        dest="outputs",
        metavar="NAME",
        help="give only this output; may be repeated",
    )
    parser.add_argument(
        "--model-version", default="", metavar="VERSION", help="insist on this version"
    )
    parser.add_argument("--save", type=Path, metavar="DIR", help="write each output to a file here")
    _add_shared_options(parser, "print the answer as JSON")
    parser.set_defaults(run=run_infer)


def _register_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "models",
        help="list the models that answer, with their tensors",
        description="List the models, or show the inputs and outputs of one.",
        epilog=_MODELS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", default="", help="show this one's inputs and outputs"
    )
    _add_shared_options(parser, "print as JSON")
    parser.set_defaults(run=run_models)


def _add_shared_options(parser: argparse.ArgumentParser, json_help: str) -> None:
    parser.add_argument("--json", action="store_true", help=json_help)
    parser.add_argument(
        "--endpoint", help=f"where the gateway listens (${ENDPOINT_VARIABLE}, {DEFAULT_ENDPOINT})"
    )
    parser.add_argument(
        "--curve-server", metavar="SERVER.pub", help="for tcp://: the host's public key"
    )
    parser.add_argument(
        "--curve-key", metavar="NAME.key", help="for tcp://: your own pair (superbrain access)"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="(%(default)g)"
    )


def _curve(args: argparse.Namespace) -> CurveKeys | None:
    """Read the keys for TCP, if they are named."""
    if args.curve_server is None and args.curve_key is None:
        return None
    if args.curve_server is None or args.curve_key is None:
        msg = "expected --curve-server and --curve-key together, found one of them"
        raise InvalidArgument(msg, mend="The first is the host's public key, the second your own")
    return CurveKeys.load(args.curve_server, args.curve_key)


def run_infer(args: argparse.Namespace) -> int:
    """Send one request; print the answer."""
    with Client(args.endpoint, args.timeout, curve=_curve(args)) as client:
        interface = client.metadata(args.model, version=args.model_version)
        result = client.infer(
            args.model,
            read_inputs(args.inputs, interface),
            version=args.model_version,
            outputs=args.outputs or None,
        )
    saved = save_outputs(result, args.save) if args.save else []
    print(answer_json(result) if args.json else answer_text(result))
    if not args.json:
        for path in saved:
            print(f"saved {path}")
    return 0


def run_models(args: argparse.Namespace) -> int:
    """Print the model list, or one model's interface."""
    with Client(args.endpoint, args.timeout, curve=_curve(args)) as client:
        if args.model:
            metadata = client.metadata(args.model)
            print(_json(msgspec.structs.replace(metadata, id="")) if args.json else card(metadata))
        else:
            models = client.models()
            print(_json(models) if args.json else overview(models))
    return 0


def overview(models: Sequence[ModelSummary]) -> str:
    """Write the model list as an aligned table."""
    if not models:
        return "No model is deployed. Drop a bundle into the inbox."
    rows = [
        (model.name, model.version, "yes" if model.ready else "no", model.reason)
        for model in models
    ]
    return table([("MODEL", "VERSION", "READY", "REASON"), *rows])


def card(metadata: ModelMetadata) -> str:
    """Write one model's interface: a title, and a row for each tensor."""
    head = [f"{metadata.name} {', '.join(metadata.versions)} ({metadata.platform})"]
    if metadata.description:
        head.append(metadata.description)
    rows = [("", "TENSOR", "TYPE", "DESCRIPTION")]
    rows += [_tensor_row("input", tensor) for tensor in metadata.inputs]
    rows += [_tensor_row("output", tensor) for tensor in metadata.outputs]
    return "\n".join([*head, "", table(rows)])


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Align columns with two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _tensor_row(role: str, tensor: InterfaceTensor) -> tuple[str, str, str, str]:
    return role, tensor.name, describe(tensor), tensor.description


def print_as_json(value: Any) -> None:  # noqa: ANN401 - anything msgspec can write
    """Print a structure as indented JSON."""
    print(_json(value))


def _json(value: Any) -> str:  # noqa: ANN401
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def parse_typed_input(text: str) -> Given:
    """Read an `--input`, for argparse."""
    try:
        return parse_input(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
