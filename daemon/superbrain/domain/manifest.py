"""The manifest: what a bundle says about itself, as structures.

The manifest is the signed payload of a bundle. manifest_json.py reads and writes it; what it must
obey beyond its types stands in manifest_rules.py, graph_rules.py, engine_rules.py and
golden_rules.py.
docs/bundle-format.md describes every field.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal, NoReturn

import msgspec

from superbrain.domain.engine import EngineKey
from superbrain.domain.errors import ManifestError

TIMING_S = 10.0  # after which no further round is begun
BATCH_ROUNDS = 2  # of a proof: every case is proven that often among different mates
Select = Literal["first", "fastest"]  # of the rungs that prove, which one serves
Size = int | str  # a fixed size, or the name of a dynamic dimension


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all parts of the manifest: immutable, strict, defaults left out when written."""


class FileEntry(Record, frozen=True):
    """One file of the bundle: its path inside it, exact size and sha256 (lower-case hex)."""

    path: str
    size_bytes: int
    sha256: str


class GraphTensor(Record, frozen=True):
    """An input or output of a graph as its ONNX file declares it; a string names a dynamic size."""

    name: str
    datatype: str
    shape: list[Size]


class Range(Record, frozen=True):
    """Bounds of a dynamic dimension: smallest, typical and largest size."""

    min: int
    opt: int
    max: int


class Graph(Record, frozen=True):
    """One ONNX model of the bundle.

    `threads`: how many one run may use; `precisions`: the same model in other precisions, each in a
    file of its own (`{"int8": "graphs/main.int8.onnx"}`), for the rungs that name one;
    `gpu_memory_mb`: what its engine may hold of a GPU's memory, 0 for no limit of its own.
    """

    path: str
    inputs: list[GraphTensor]
    outputs: list[GraphTensor]
    dynamic: dict[str, Range] = {}
    threads: int = 1
    precisions: dict[str, str] = {}
    gpu_memory_mb: int = 0


class InterfaceTensor(Record, frozen=True):
    """One tensor that a caller sends or gets.

    -1 in its shape means any size; BYTES with shape [] is one blob such as an image file.
    """

    name: str
    datatype: str
    shape: list[int]
    description: str = ""


class Interface(Record, frozen=True):
    """What a caller sees: request tensors in, response tensors out."""

    inputs: list[InterfaceTensor]
    outputs: list[InterfaceTensor]


class Batching(Record, frozen=True):
    """How many requests may share one run of the graph, and how long the first waits for others.

    `max_size`: rows of one run, 1 for no batching; `adaptive`: wait only where the last batch shows
    that waiting pays, instead of always until the batch is full or `max_delay_ms` have passed.
    """

    max_size: int = 1
    max_delay_ms: int = 0
    adaptive: bool = True


class Serving(Record, frozen=True):
    """How the bundle wants to be served.

    `instances`: worker processes; `queue_size`: requests held per worker before new ones are
    refused; `request_timeout_ms`: the limit of a request that names none; `load_timeout_s`: how
    long loading and each golden case may take; `brief_outage`: where it does not fit beside the
    version that serves, that one may stop first.
    """

    instances: int = 1
    queue_size: int = 64
    request_timeout_ms: int = 30_000
    load_timeout_s: int = 120
    batching: Batching = Batching()
    brief_outage: bool = False


class Targets(Record, frozen=True):
    """What the host must have: free memory, and versions of runtimes (`onnxruntime = ">=1.24"`)."""

    memory_mb: int = 0
    onnxruntime: str = ""


class Exact(Record, frozen=True, tag_field="kind", tag="exact"):
    """Every element equal."""


class Close(Record, frozen=True, tag_field="kind", tag="close"):
    """|actual - expected| <= atol + rtol * |expected| for every element (numpy.allclose)."""

    rtol: float
    atol: float


class Cosine(Record, frozen=True, tag_field="kind", tag="cosine"):
    """Cosine similarity of the flattened tensors at least `min`."""

    min: float


class TopK(Record, frozen=True, tag_field="kind", tag="top_k"):
    """Along the last axis, the `k` largest are the same set in at least `min` of all rows."""

    k: int
    min: float = 1.0


Tolerance = Exact | Close | Cosine | TopK
TensorFiles = dict[str, str]  # tensor name -> path of the file that holds it


class GraphCase(Record, frozen=True):
    """Recorded inputs and outputs of one graph within a golden case."""

    inputs: TensorFiles
    outputs: TensorFiles


class GoldenCase(Record, frozen=True):
    """One recorded request with the response it must give, through pre- and postprocessing."""

    name: str
    request: TensorFiles
    response: TensorFiles
    graphs: dict[str, GraphCase] = {}


class Golden(Record, frozen=True):
    """All golden cases and how near to them an answer must be, per output.

    `precision_tolerances`: other ones for rungs of a precision (`{"int8": {"scores": …}}`).
    """

    cases: list[GoldenCase]
    tolerances: dict[str, Tolerance]
    graph_tolerances: dict[str, dict[str, Tolerance]] = {}
    precision_tolerances: dict[str, dict[str, Tolerance]] = {}


class CarriedEngine(Record, frozen=True):
    """An engine of `graph` that the bundle brings along, for hosts of one kind.

    `key` is all that the engine depends on, as the host knows it that built it; `driver` and `cuda`
    are what that host had, and decide nothing.
    """

    graph: str
    path: str
    key: EngineKey
    driver: str = ""
    cuda: str = ""


class Manifest(Record, frozen=True):
    """All that is signed. `sequence` rises with every release of `name` (anti-rollback)."""

    schema: Literal[1]
    name: str
    version: str
    sequence: int
    created: dt.datetime
    graphs: dict[str, Graph]
    interface: Interface
    golden: Golden
    files: list[FileEntry]
    ladder: list[str] = msgspec.field(default_factory=lambda: ["onnxruntime:cpu"])
    select: Select = "first"
    description: str = ""
    expires: dt.datetime | None = None
    targets: Targets = Targets()
    serving: Serving = Serving()
    engines: list[CarriedEngine] = []

    @property
    def has_code(self) -> bool:
        """Whether Python of its own comes along."""
        return any(file.path.startswith("code/") for file in self.files)

    @property
    def proof_timeout_s(self) -> int:
        """How long loading and running all golden cases may take, in batches too."""
        runs = 1 + len(self.golden.cases)
        if self.serving.batching.max_size > 1:
            runs += BATCH_ROUNDS
        return self.serving.load_timeout_s * runs

    @property
    def timing_timeout_s(self) -> float:
        """How long timing may take: a round to warm up, rounds for a while, the end of the last."""
        return TIMING_S + 2 * self.proof_timeout_s


def refuse(reason: str, message: str, mend: str = "") -> NoReturn:
    """Refuse a manifest."""
    raise ManifestError(f"manifest: {message}", reason=reason, mend=mend)
