"""The text of a first bundle.toml and pipeline.py: every field there, explained in plain words.

Written once by `superbrain bundle init`, read and changed by a person from then on.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from superbrain.domain.graph_rules import SIZE_NAME
from superbrain.domain.manifest import Close, Exact, GraphTensor, Range, Tolerance

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping, Sequence

    from superbrain.engines.graph_check import FileTensor

# What exporters write where a size has no name; as names they would make such sizes equal.
_NAMELESS = {"none", "unknown"}
FLOATS = {"FP16", "FP32", "FP64"}
_BATCH = Range(min=1, opt=1, max=8)
_LENGTH = Range(min=1, opt=128, max=4096)
_COUNT = Range(min=0, opt=1, max=65_536)


class Known(NamedTuple):
    """What was found out about a graph, instead of guesses; `origin` and `reasons` are comments.

    `precisions`: files of other precisions; each has a rung before the last of `ladder`.
    """

    description: str
    origin: list[str]
    dynamic: Mapping[str, Range]
    tolerances: Mapping[str, Tolerance]
    reasons: list[str]
    ladder: Sequence[str] = ("onnxruntime:cpu",)
    precisions: Mapping[str, str] = {}
    precision_tolerances: Mapping[str, Mapping[str, Tolerance]] = {}
    precision_reasons: Mapping[str, list[str]] = {}


def plain_name(text: str) -> str:
    """Make a valid bundle or graph name of a file's name."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "model"


def named_tensors(tensors: Iterable[FileTensor]) -> list[GraphTensor]:
    """Name every open size: as the file does where that is a name, else after tensor and axis."""
    return [
        GraphTensor(
            tensor.name,
            tensor.datatype,
            [_size(tensor.name, axis, size) for axis, size in enumerate(tensor.shape)],
        )
        for tensor in tensors
    ]


def _size(tensor: str, axis: int, size: int | str | None) -> int | str:
    if isinstance(size, int) and size >= 0:
        return size
    if isinstance(size, str) and _is_name(size):
        return size
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', tensor).strip('_') or 'size'}_{axis}"


def _is_name(size: str) -> bool:
    has_letters = re.search("[A-Za-z]", size) is not None
    return has_letters and size.lower() not in _NAMELESS and SIZE_NAME.fullmatch(size) is not None


def likely_ranges(
    inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]
) -> dict[str, Range]:
    """First guesses: a batch on the first axis, lengths elsewhere, counts only outputs know."""
    ranges: dict[str, Range] = {}
    for tensor in inputs:
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, str):
                ranges.setdefault(size, _LENGTH if axis else _BATCH)
    for tensor in outputs:
        for size in tensor.shape:
            if isinstance(size, str):
                ranges.setdefault(size, _COUNT)
    return ranges


def recipe_text(
    *,
    name: str,
    created: dt.datetime,
    graph: str,
    path: str,
    inputs: Sequence[GraphTensor],
    outputs: Sequence[GraphTensor],
    known: Known | None = None,
) -> str:
    """Write a complete bundle.toml.

    Args:
        name: of the bundle.
        created: when, with its zone.
        graph: name of the graph.
        path: of its file inside the bundle.
        inputs: of the graph, sizes named.
        outputs: of the graph, sizes named.
        known: what was found out; without it there are guesses.
    """
    ranges = likely_ranges(inputs, outputs) if known is None else known.dynamic
    return _RECIPE.format(
        origin="" if known is None else _comment(known.origin),
        description=_quoted("" if known is None else known.description),
        bounds=_GUESSES if known is None else _MEASURED_BOUNDS,
        chosen="" if known is None else _comment(known.reasons),
        name=_quoted(name),
        created=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        ladder=_ladder(known),
        runtime=_RUNTIME if known is None or "onnxruntime:cpu" in known.ladder else _NO_RUNTIME,
        precisions="" if known is None else _precisions(graph, known.precisions),
        precision_tolerances="" if known is None else _precision_tolerances(outputs, known),
        graph=_key(graph),
        path=_quoted(path),
        inputs=_tensors(inputs),
        outputs=_tensors(outputs),
        dynamic=_dynamic(ranges),
        request=_tensors(inputs, interface=True),
        response=_tensors(outputs, interface=True),
        tolerances=_tolerances(outputs, {} if known is None else known.tolerances),
    )


def pipeline_text(inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> str:
    """Write a code/pipeline.py that passes the tensors through, with what may be done instead."""
    passed = [_passed(tensor) for tensor in inputs]
    return _PIPELINE.format(
        imports="\nimport numpy as np" if any("np." in value for value in passed) else "",
        inputs="\n".join(
            f"            {_quoted(t.name)}: {value},"
            for t, value in zip(inputs, passed, strict=True)
        ),
        outputs="\n".join(
            f"            {_quoted(t.name)}: outputs[{_quoted(t.name)}]," for t in outputs
        ),
    )


def _passed(tensor: GraphTensor) -> str:
    value = f"request[{_quoted(tensor.name)}]"
    blob = tensor.datatype == "BYTES" and not tensor.shape
    return f"np.array({value}, dtype=object)" if blob else value


def _tensors(tensors: Sequence[GraphTensor], *, interface: bool = False) -> str:
    lines = []
    for tensor in tensors:
        sizes = [-1 if interface and isinstance(size, str) else size for size in tensor.shape]
        shape = ", ".join(_quoted(size) if isinstance(size, str) else str(size) for size in sizes)
        described = ', description = ""' if interface else ""
        lines.append(
            f"    {{ name = {_quoted(tensor.name)}, "
            f'datatype = "{tensor.datatype}", shape = [{shape}]{described} }},'
        )
    return "\n".join(lines)


def _dynamic(ranges: Mapping[str, Range]) -> str:
    if not ranges:
        return "# This graph has none.\n"
    return "".join(
        f"{_key(name)} = {{ min = {one.min}, opt = {one.opt}, max = {one.max} }}\n"
        for name, one in ranges.items()
    )


def _tolerances(outputs: Sequence[GraphTensor], known: Mapping[str, Tolerance]) -> str:
    guesses = {
        tensor.name: Close(1e-3, 1e-5) if tensor.datatype in FLOATS else Exact()
        for tensor in outputs
    }
    return "\n".join(
        f"{_key(tensor.name)} = {_tolerance({**guesses, **known}[tensor.name])}"
        for tensor in outputs
    )


def _ladder(known: Known | None) -> str:
    rungs = ("onnxruntime:cpu",) if known is None else known.ladder
    listed = f"ladder = [{', '.join(map(_quoted, rungs))}]"
    return listed if len(rungs) == 1 else f'{listed}\nselect = "fastest"'


def _precisions(graph: str, files: Mapping[str, str]) -> str:
    if not files:
        return ""
    lines = "".join(f"{_key(name)} = {_quoted(path)}\n" for name, path in files.items())
    return f"\n# The same graph in other precisions.\n[graphs.{_key(graph)}.precisions]\n{lines}"


def _precision_tolerances(outputs: Sequence[GraphTensor], known: Known) -> str:
    return "".join(
        f"\n\n{_comment(known.precision_reasons.get(name, []))}"
        f"[golden.precision_tolerances.{_key(name)}]\n{_tolerances(outputs, tolerances)}"
        for name, tolerances in known.precision_tolerances.items()
    )


def _tolerance(tolerance: Tolerance) -> str:
    fields = msgspec.to_builtins(tolerance)
    written = (
        f"{key} = {_quoted(value) if isinstance(value, str) else f'{value:g}'}"
        for key, value in fields.items()
    )
    return f"{{ {', '.join(written)} }}"


def _comment(lines: Iterable[str]) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _key(text: str) -> str:
    """A TOML key, bare where it may be."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_RUNTIME = 'onnxruntime = ">=1.24"'
_NO_RUNTIME = '# onnxruntime = ">=1.24"'
_GUESSES = """\
These are guesses: put in what
# your callers really send. Requests beyond them are refused."""
_MEASURED_BOUNDS = """\
The graph was compared
# with its original within these bounds. Requests beyond them are refused."""

_RECIPE = """\
# What this bundle is. `superbrain bundle build` makes one signed file of this folder.
# docs/bundle-format.md describes every field.
{origin}
# Version of this format. There is one so far.
schema = 1
# What callers ask for. Every release of the model keeps this name.
name = {name}
# Your version of it. Callers see it in every answer.
version = "0.1.0"
# Add one with every release: a host never goes back to a lower number by itself.
sequence = 1
# When this release was made. It stands here so that the same folder gives the same file.
created = {created}
# After this moment no host accepts it any more. Leave it out for none.
# expires = 2030-01-01T00:00:00Z
# One line for people.
description = {description}
# Ways to run the graphs, best first. A host takes the first one that reproduces the golden cases;
# with select = "fastest" the fastest of all that do. What is there besides onnxruntime:cpu, and
# how to make fp16 and int8: docs/rungs.md, superbrain bundle precision.
{ladder}

# One part like this for every graph's file: what goes in and out, exactly as the file declares it.
# A number is a fixed size, a name a dynamic one. Sizes of one name are equal in every request, so
# give those that always are the same name, such as "batch".
[graphs.{graph}]
path = {path}
# Threads that one run may use. One is best when there are many callers.
threads = 1
inputs = [
{inputs}
]
outputs = [
{outputs}
]

# Smallest, typical and largest size of every dynamic dimension. {bounds}
[graphs.{graph}.dynamic]
{dynamic}{precisions}
# What a caller sends and gets; -1 is any size, and BYTES with shape [] one file or text. Without
# code/pipeline.py it is the graph's own tensors. With it you choose: an image in, a label out.
[interface]
inputs = [
{request}
]
outputs = [
{response}
]

# How near to the recorded answer every host must come, for each output of the interface:
#   {{ kind = "exact" }}                            every element equal
#   {{ kind = "close", rtol = 1e-3, atol = 1e-5 }}  |answer - recorded| <= atol + rtol * |recorded|
#   {{ kind = "cosine", min = 0.999 }}              the direction of an embedding
#   {{ kind = "top_k", k = 1, min = 1.0 }}          the same k best classes, in this share of rows
{chosen}[golden.tolerances]
{tolerances}{precision_tolerances}

# The same for a graph's own outputs, if you record them: `bundle record-golden --graphs`.
# [golden.graph_tolerances.{graph}]

# What a host must have: free memory in MB (0 is any), and versions of the runtime. The golden cases
# decide whether a version is right; name here only what cannot work.
[targets]
memory_mb = 0
{runtime}

# How it wants to be served.
[serving]
# Worker processes that answer side by side.
instances = 1
# Requests that may wait in front of one of them before new ones are refused.
queue_size = 64
# How long a request is worth waiting for if its caller names no limit.
request_timeout_ms = 30000
# How long loading, and each golden case, may take.
load_timeout_s = 120
# Up to how many requests may share one run; the graph needs a dynamic first dimension for it.
# batching = {{ max_size = 8 }}
# Whether the version that serves may stop first, where a host has no room for both at once.
# Requests wait meanwhile, and the old version comes back should the new one not prove itself.
# brief_outage = true
"""

_PIPELINE = '''\
"""What happens around the graph: from a request to its inputs, from its outputs to an answer.

The class is constructed once; then every request goes through both methods, one at a time.
For several graphs write `run(self, request, graphs)` instead of the two:
`graphs["det"]({{"x": array}})` runs a graph and returns a dict of its outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
{imports}
if TYPE_CHECKING:  # for your editor
    from superbrain.domain.contract import Arrays, Bundle, Request, Response


class Pipeline:
    def __init__(self, bundle: Bundle) -> None:
        # Read once what every request needs:
        #   bundle.asset("table.bin")       bytes of assets/table.bin
        #   bundle.text("labels.txt")       text of assets/labels.txt
        #   bundle.graph("det").dynamic     bounds of its sizes: ["W"].min, .opt, .max
        #   bundle.graph("det").metadata    what the ONNX file says of itself
        pass

    def preprocess(self, request: Request) -> Arrays:
        # request: an array for every input of the interface, `bytes` where it is BYTES with
        # shape []. To refuse a request, raise ValueError: the caller gets your words.
        return {{
{inputs}
        }}

    def postprocess(self, outputs: Arrays, request: Request) -> Response:
        # outputs: the graph's, by name. Return every output of the interface: arrays of its
        # datatype, numbers, lists, str or bytes.
        return {{
{outputs}
        }}
'''
