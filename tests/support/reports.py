"""Sample facts of a host on a busy day, for tests of whatever shows or judges them."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from superbrain.domain.ctl import Quantiles
from superbrain.domain.durations import BOUNDS_NS, STAGES, Histogram
from superbrain.domain.health import (
    CandidateFacts,
    GatewayFacts,
    GatewayTraffic,
    GpuFacts,
    Health,
    HostFacts,
    InboxFile,
    ModelFacts,
    Problem,
    ProcessFacts,
    ProofSummary,
    TcpFacts,
    VersionFacts,
)
from superbrain.domain.operations import ProofRecord, ReportReply, Transition
from superbrain.domain.proof import CaseTime, OutputFigures, Proof
from superbrain.domain.rung_facts import RungFacts
from superbrain.domain.sandbox import Sandbox
from superbrain.domain.settings import Setting

NOON: Final = dt.datetime(2026, 3, 2, 12, 0, tzinfo=dt.UTC)
GIB: Final = 1 << 30

HOST: Final = HostFacts(
    hostname="edge-7",
    kernel="Linux 6.1.0 x86_64",
    cpu_count=8,
    cpu_percent=31.0,
    load_1m=2.4,
    memory_total_bytes=16 * GIB,
    memory_available_bytes=9 * GIB,
    disk_total_bytes=200 * GIB,
    disk_free_bytes=61 * GIB,
    boot_time=NOON - dt.timedelta(days=40),
)
GATEWAY: Final = GatewayFacts(endpoint="ipc:///run/superbrain/superbrain.sock", running=True)
PROCESS: Final = ProcessFacts(
    pid=812,
    started_at=NOON - dt.timedelta(days=3, hours=4),
    rss_bytes=61 << 20,
    cpu_percent=0.4,
    threads=3,
    open_files=41,
)
ORIENTATION: Final = ModelFacts(
    name="orientation",
    state="ready",
    version="1.2.0",
    deployment_id=4,
    deployment_state="LIVE",
    digest="sha256:" + "4f" * 32,
    rung="onnxruntime:cpu",
    runtime="onnxruntime 1.31.1",
    live_since=NOON - dt.timedelta(days=2),
    proof=ProofSummary(
        at=NOON - dt.timedelta(days=2), cases=6, worst_abs_error=1.2e-6, slowest_case_ms=4.1
    ),
    previous_version="1.1.0",
    workers=[msgspec.structs.replace(PROCESS, pid=840, rss_bytes=380 << 20)],
    sandbox=Sandbox("full", landlock_abi=6, system_calls=True, privileges=True),
    requests=1_284_311,
    waiting=2,
    outstanding=1,
    latency_ms=Quantiles(p50=2.31, p90=3.9, p99=6.72, max=19.2),
)
OCR: Final = msgspec.structs.replace(
    ORIENTATION,
    name="ocr",
    version="3.0.1",
    deployment_id=7,
    rung="tensorrt:fp16",
    requests=48_120,
    errors=3,
    latency_ms=Quantiles(p50=41.0, p90=80.2, p99=141.9, max=300.0),
    restarts=1,
    candidate=CandidateFacts(
        deployment_id=9,
        version="3.1.0",
        state="BUILDING",
        rung="tensorrt:fp32",
        since=NOON - dt.timedelta(seconds=95),
        detail="layer 41 of 112",
        percent=37.0,
    ),
)


def durations(count: int, milliseconds: int) -> Histogram:
    """Build a histogram of durations that are all alike."""
    bucket = sum(bound_ns < milliseconds * 1_000_000 for bound_ns in BOUNDS_NS)
    counts = [count if number == bucket else 0 for number in range(len(BOUNDS_NS) + 1)]
    return Histogram(counts, count * milliseconds * 1_000_000)


def version_facts(version: str, ok: int) -> VersionFacts:
    """Build the totals of a version whose requests spend 1, 2, 3 and 4 ms in the four stages."""
    return VersionFacts(
        version,
        ok=ok,
        caller_errors=2,
        internal_errors=1,
        runs=ok,
        batches=ok // 4,
        batched_requests=ok // 2,
        latency=durations(ok, 10),
        stages={stage: durations(ok, ms) for ms, stage in enumerate(STAGES, 1)},
    )


def full_health() -> Health:
    """Build a report that knows every figure there is."""
    busy = busy_health()
    worked = msgspec.structs.replace(
        busy.models[1],
        proven_again_at=NOON,
        queued=1,
        deployments={"LIVE": 2, "RETIRED": 5, "BUILDING": 1},
        steps={"PROBATION": 3, "LIVE": 3, "ROLLED_BACK": 1, "REJECTED": 2},
        incident_counts={"WorkerHung": 1},
        gateway=GatewayTraffic(requests=700, errors=3, redispatched=1, latency=durations(697, 12)),
        versions=[version_facts("3.0.0", 900), version_facts("3.0.1", 100)],
        workers=[msgspec.structs.replace(PROCESS, pid=841, cpu_seconds=812.5)],
    )
    tcp = TcpFacts(["tcp://0.0.0.0:5555"], running=True, process=PROCESS, clients=3, refused=2)
    process = msgspec.structs.replace(PROCESS, cpu_seconds=41.25)
    gateway = msgspec.structs.replace(GATEWAY, process=PROCESS)
    models = [busy.models[0], worked, busy.models[2]]
    return busy_health(models=models, tcp=tcp, process=process, gateway=gateway)


def sample_health(**changes: object) -> Health:
    """Build a report of a host that is well; `changes` replace its fields."""
    health = Health(
        at=NOON,
        status="ok",
        version="0.1.0",
        started_at=PROCESS.started_at,
        ready=True,
        problems=[],
        process=PROCESS,
        gateway=GATEWAY,
        host=HOST,
        gpus=[],
        models=[ORIENTATION],
        inbox=[],
        inbox_path="/var/lib/superbrain/inbox",
    )
    return msgspec.structs.replace(health, **changes)


def busy_health(**changes: object) -> Health:
    """Build a report with a bit of everything."""
    refused = InboxFile(
        name="speech-0.9.0.sbb",
        outcome="refused",
        message="signed by key 3f2a…, which no trusted key file holds",
        mend="copy the author's public key into /etc/superbrain/trust",
    )
    copying = InboxFile(
        name="magika-2.0.0.sbb",
        outcome="waiting",
        message="it is still growing",
        have_bytes=412 << 20,
        need_bytes=1330 << 20,
        since=NOON - dt.timedelta(seconds=12),
    )
    speech = ModelFacts(
        name="speech-detection",
        state="unavailable",
        version="0.8.2",
        deployment_id=3,
        deployment_state="LIVE",
        rung="onnxruntime:cpu",
        requests=911,
        errors=204,
        restarts=5,
        last_error="its worker ended 5 times within 60 s, the last time with signal 11",
        mend="superbrain rollback speech-detection",
    )
    gpu = GpuFacts(
        index=0,
        name="NVIDIA L4",
        memory_total_bytes=23 * GIB,
        memory_used_bytes=4 * GIB,
        utilization_percent=22.0,
        temperature_celsius=51.0,
        power_watts=38.4,
    )
    problems = [
        Problem("critical", "model speech-detection", speech.last_error, speech.mend),
        Problem("warning", f"inbox {refused.name}", refused.message, refused.mend),
    ]
    busy: dict[str, object] = {
        "status": "critical",
        "ready": False,
        "problems": problems,
        "gpus": [gpu],
        "models": [ORIENTATION, OCR, speech],
        "inbox": [refused, copying],
    }
    return sample_health(**(busy | changes))


def sample_transitions() -> list[Transition]:
    """Build the life of one deployment that fell from fp16 to fp32, newest first as the daemon."""
    steps = [
        (0.0, "Settled", "RECEIVED", "VERIFYING", "", ""),
        (1.8, "Trusted", "VERIFYING", "BUILDING", "tensorrt:fp16", ""),
        (94.0, "Built", "BUILDING", "PROVING", "tensorrt:fp16", ""),
        (
            95.2,
            "Mismatched",
            "PROVING",
            "BUILDING",
            "tensorrt:fp32",
            "case 'invoice', output 'boxes': cosine 0.25, expected at least 0.999",
        ),
        (260.0, "Built", "BUILDING", "PROVING", "tensorrt:fp32", ""),
        (262.5, "Matched", "PROVING", "SWITCHING", "tensorrt:fp32", ""),
        (262.501, "Switched", "SWITCHING", "PROBATION", "tensorrt:fp32", ""),
        (862.501, "Stable", "PROBATION", "LIVE", "tensorrt:fp32", ""),
    ]
    start = NOON - dt.timedelta(hours=1)
    transitions = [
        Transition(
            at=start + dt.timedelta(seconds=seconds),
            deployment_id=7,
            model="ocr",
            version="3.0.1",
            event=event,
            state_from=state_from,
            state_to=state_to,
            rung=rung,
            detail=detail,
        )
        for seconds, event, state_from, state_to, rung, detail in steps
    ]
    return transitions[::-1]


def sample_report() -> ReportReply:
    """Build the report of the deployment above, with its two proofs."""
    bad = OutputFigures(
        case="invoice",
        output="boxes",
        graph="",
        passed=False,
        tolerance="cosine >= 0.999",
        reason="cosine 0.25, expected at least 0.999",
        max_abs_error=0.81,
        max_rel_error=3.2,
        cosine=0.25,
    )
    good = msgspec.structs.replace(
        bad, passed=True, reason="", max_abs_error=2.1e-6, max_rel_error=4e-6, cosine=1.0
    )
    times = [CaseTime("invoice", 41.2)]
    return ReportReply(
        model="ocr",
        version="3.0.1",
        deployment_id=7,
        state="LIVE",
        digest="sha256:" + "9c" * 32,
        sequence=31,
        created=NOON - dt.timedelta(days=1),
        description="Reads printed text from page images.",
        ladder=["tensorrt:fp16", "tensorrt:fp32", "onnxruntime:cpu"],
        rung="tensorrt:fp32",
        signers=["3f2a90c1", "b7d1e6aa"],
        settings=[
            Setting("instances", "1", "one worker process holds the engine"),
            Setting("batching", "up to 8", "requests that wait when a run ends share the next one"),
        ],
        proofs=[
            ProofRecord(NOON, 1, Proof("tensorrt:fp16", [bad], times, "TensorRT 10.9")),
            ProofRecord(NOON, 2, Proof("tensorrt:fp32", [good], times, "TensorRT 10.9")),
        ],
        transitions=sample_transitions(),
        rungs=[
            RungFacts("tensorrt:fp16", "drifts", reason="cosine 0.25 is below 0.999"),
            RungFacts("tensorrt:fp32", "chosen", milliseconds=3.25),
            RungFacts("onnxruntime:cpu", "proven", milliseconds=41.2),
        ],
    )
