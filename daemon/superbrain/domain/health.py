"""The health report: every fact that superbrain publishes about itself, as one structure.

The same report is `health.json`, the answer of the control socket, `superbrain status` and
`superbrain health`; docs/health.schema.json is generated from it. Bytes, seconds, milliseconds
and percent are in the names; what a host cannot tell is None.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

import msgspec

from superbrain.domain.ctl import Quantiles
from superbrain.domain.durations import Histogram
from superbrain.domain.outage import OutageFacts
from superbrain.domain.rung_facts import RungFacts
from superbrain.domain.sandbox import Sandbox

Severity = Literal["ok", "warning", "critical"]
ModelState = Literal["ready", "starting", "degraded", "unavailable"]


class Problem(msgspec.Struct, frozen=True):
    """Something an operator should know: about what, what is wrong, what to do."""

    severity: Severity
    subject: str
    message: str
    mend: str = ""


class ProcessFacts(msgspec.Struct, frozen=True):
    """One process of superbrain."""

    pid: int
    started_at: dt.datetime
    rss_bytes: int | None = None
    cpu_percent: float | None = None
    threads: int | None = None
    open_files: int | None = None
    cpu_seconds: float | None = None


class HostFacts(msgspec.Struct, frozen=True):
    """The machine (psutil). `disk_*` is the file system that holds the store."""

    hostname: str
    kernel: str
    cpu_count: int
    cpu_percent: float | None
    load_1m: float | None
    memory_total_bytes: int
    memory_available_bytes: int
    disk_total_bytes: int
    disk_free_bytes: int
    boot_time: dt.datetime | None = None


class GpuProcess(msgspec.Struct, frozen=True):
    """A process that holds memory of a GPU, where the driver tells."""

    pid: int
    memory_bytes: int | None = None


class GpuXid(msgspec.Struct, frozen=True):
    """An error that the driver has reported for a GPU (Xid), since this daemon runs."""

    at: dt.datetime
    code: int


class GpuFacts(msgspec.Struct, frozen=True):
    """One GPU (NVML); every figure may be missing on a given device.

    `lost`: in a sentence why it cannot be used any more, empty when it can; `throttled_by`: what
    holds its clocks down; `ecc_*`: memory errors since the driver was loaded; `mig`: whether it is
    partitioned; `xids`: the newest errors, oldest first.
    """

    index: int
    name: str
    uuid: str | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    lost: str = ""
    compute_capability: str | None = None
    power_limit_watts: float | None = None
    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttled_by: list[str] | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    mig: bool | None = None
    processes: list[GpuProcess] | None = None
    xids: list[GpuXid] = []


class ProofSummary(msgspec.Struct, frozen=True):
    """The proof that the serving processes passed."""

    at: dt.datetime
    cases: int
    worst_abs_error: float | None
    slowest_case_ms: float


class CandidateFacts(msgspec.Struct, frozen=True):
    """A deployment that is on its way, or the last one that ended badly."""

    deployment_id: int
    version: str
    state: str
    rung: str = ""
    since: dt.datetime | None = None
    detail: str = ""
    mend: str = ""
    percent: float | None = None
    ladder: list[RungFacts] = []


IncidentKind = Literal[
    "WorkerHung",
    "RequestPoisoned",
    "LimitExceeded",
    "LeakFound",
    "WorkerRecycled",
    "BecameSlow",
    "NoLongerSlow",
    "ReproofMismatch",
    "ReproofUnreadable",
    "ProvenAgain",
    "LeftGpu",
    "ReturnedToGpu",
    "BriefOutage",
]


class Incident(msgspec.Struct, frozen=True):
    """Something that a model did and that was dealt with: what, and what to do about its cause."""

    at: dt.datetime
    kind: IncidentKind
    message: str
    mend: str = ""


class VersionFacts(msgspec.Struct, frozen=True):
    """What the workers of one version have done since the daemon started, by how it ended.

    `caller_errors`: the request did not fit; `expired`: its deadline had passed before it began;
    `refused`: too many waited. `batched_requests` shared a run, in `batches`. `latency` is of those
    that ended well, from arrival in the worker to the answer, and `stages` where that time went.
    """

    version: str
    ok: int = 0
    caller_errors: int = 0
    internal_errors: int = 0
    expired: int = 0
    refused: int = 0
    runs: int = 0
    batches: int = 0
    batched_requests: int = 0
    latency: Histogram = Histogram()
    stages: dict[str, Histogram] = {}


class GatewayTraffic(msgspec.Struct, frozen=True):
    """What has passed the gateway for one model since the daemon started.

    `errors`: answered with an error, its own and the workers'; `redispatched`: sent to another
    worker; `latency`: of those that a worker answered, from the client's message to that answer.
    """

    requests: int = 0
    errors: int = 0
    redispatched: int = 0
    latency: Histogram = Histogram()


class ModelFacts(msgspec.Struct, frozen=True):
    """One model: what serves, how it does, and what is coming.

    `state` is coarser than a deployment's: ready (a proven process answers), starting, degraded
    (answers, but something is wrong), unavailable. `requests` and `errors` count the gateway's road
    and lanes alike, `latency_ms` is the worse of the two; `waiting` and `outstanding` are the
    gateway's. `mean_batch`: requests per run, of those that shared one; None where none did.
    `sandbox` is what holds its workers, the least of them; None while there are none.
    `restarts_in_s`: when a worker that died is started again, None when none waits for that;
    `slower`: in a sentence, empty when it is not; `incidents`: the newest, oldest first; `fault`:
    the code of what is wrong with all of it, empty when nothing is. `ladder`: every rung that the
    manifest names, and what became of it here. `queued` wait in the workers. `deployments`: how
    many the journal knows, by state. Since the daemon started: `steps`, how many deployments have
    come into each state, `incident_counts` by kind, what `gateway` and `versions` have counted, and
    the newest brief `outage` that made room for a candidate.
    """

    name: str
    state: ModelState
    version: str = ""
    deployment_id: int = 0
    deployment_state: str = ""
    digest: str = ""
    rung: str = ""
    runtime: str = ""
    live_since: dt.datetime | None = None
    proof: ProofSummary | None = None
    previous_version: str = ""
    workers: list[ProcessFacts] = []
    sandbox: Sandbox | None = None
    requests: int = 0
    errors: int = 0
    waiting: int = 0
    outstanding: int = 0
    latency_ms: Quantiles = Quantiles()
    mean_batch: float | None = None
    restarts: int = 0
    restarts_in_s: float | None = None
    recycled: int = 0
    slower: str = ""
    proven_again_at: dt.datetime | None = None
    incidents: list[Incident] = []
    fault: str = ""
    last_error: str = ""
    mend: str = ""
    candidate: CandidateFacts | None = None
    ladder: list[RungFacts] = []
    queued: int = 0
    deployments: dict[str, int] = {}
    steps: dict[str, int] = {}
    incident_counts: dict[str, int] = {}
    gateway: GatewayTraffic = GatewayTraffic()
    versions: list[VersionFacts] = []
    outage: OutageFacts | None = None


class InboxFile(msgspec.Struct, frozen=True):
    """A file in the inbox that is not taken: why, and how far it is."""

    name: str
    outcome: Literal["waiting", "stalled", "refused", "ignored"]
    message: str
    mend: str = ""
    have_bytes: int = 0
    need_bytes: int = 0
    since: dt.datetime | None = None


class GatewayFacts(msgspec.Struct, frozen=True):
    """The process that owns the public socket."""

    endpoint: str
    running: bool
    process: ProcessFacts | None = None
    restarts: int = 0
    malformed: int = 0
    dropped: int = 0


class TcpFacts(msgspec.Struct, frozen=True):
    """The TCP face, where it is configured.

    `clients` are connected and have asked something, `allowed` have a key in the folder. Since its
    process started: `accepted` and `refused` connections, and `cut`, ended from this side.
    """

    endpoints: list[str]
    running: bool
    process: ProcessFacts | None = None
    restarts: int = 0
    clients: int = 0
    connections: int = 0
    allowed: int = 0
    accepted: int = 0
    refused: int = 0
    cut: int = 0


class Health(msgspec.Struct, frozen=True):
    """Everything, at one instant. `status` is the worst severity among `problems`.

    `inbox` lists the newest files of each outcome, `inbox_more` counts those beyond, by outcome.
    `counted_at`: when gateway and workers were last asked for their figures. `lane_loop` says
    whether requests on lanes take the compiled loop or its twin in Python.
    """

    at: dt.datetime
    status: Severity
    version: str
    started_at: dt.datetime
    ready: bool
    problems: list[Problem]
    process: ProcessFacts
    gateway: GatewayFacts
    host: HostFacts
    gpus: list[GpuFacts]
    models: list[ModelFacts]
    inbox: list[InboxFile]
    inbox_path: str = ""
    tcp: TcpFacts | None = None
    schema: int = 1
    counted_at: dt.datetime | None = None
    lane_loop: str = ""
    inbox_more: dict[str, int] = {}
