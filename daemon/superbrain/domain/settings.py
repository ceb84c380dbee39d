"""The settings a deployment is served with, each with the reason for it in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from superbrain.domain.batching import WINDOW_MS, window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superbrain.domain.manifest import Batching, Manifest
    from superbrain.domain.proof import Proof
    from superbrain.domain.sandbox import Sandbox


class Setting(msgspec.Struct, frozen=True):
    """One setting: what it is called, what it is set to, and why."""

    name: str
    value: str
    why: str


def explain(manifest: Manifest, proof: Proof | None, cores: int) -> list[Setting]:
    """Say how a bundle is served and why so.

    Args:
        manifest: the bundle's.
        proof: the newest that passed on this host; None before there is one.
        cores: how many processors the host has.
    """
    return list(_settings(manifest, proof, cores))


def explain_sandbox(sandbox: Sandbox) -> Setting:
    """Say how tightly the workers of a deployment are held."""
    held = "its code reaches its own bundle and a scratch folder: no network, no other process"
    return Setting("sandbox", sandbox.level, "; ".join(sandbox.missing) or held)


def _settings(manifest: Manifest, proof: Proof | None, cores: int) -> Iterator[Setting]:
    serving = manifest.serving
    yield Setting("instances", str(serving.instances), _instances(serving.instances))
    yield _threads(manifest, cores)
    yield Setting("batching", _batching_value(serving.batching), _batching(serving.batching))
    yield _window(serving.batching.max_size, proof)
    yield Setting(
        "queue",
        f"{serving.queue_size} requests",
        "wait at each worker and in the gateway before more are refused as RESOURCE_EXHAUSTED",
    )
    yield Setting(
        "timeout",
        f"{serving.request_timeout_ms} ms",
        "for a request that names none; what has not started by then is DEADLINE_EXCEEDED",
    )


def _instances(count: int) -> str:
    if count == 1:
        return "one worker process holds the engine and runs one request or batch at a time"
    return "worker processes with an engine each; a request goes to the one with the least to do"


def _threads(manifest: Manifest, cores: int) -> Setting:
    threads = max(graph.threads for graph in manifest.graphs.values())
    busy = threads * manifest.serving.instances
    why = f"per run, as the manifest says; {busy} at most are busy on {cores} cores"
    if busy > cores:
        why += ", so they take turns: fewer threads or instances would lose nothing"
    return Setting("threads", str(threads), f"{why}; idle ones sleep, they do not spin")


def _batching_value(batching: Batching) -> str:
    return "off" if batching.max_size == 1 else f"up to {batching.max_size}"


def _batching(batching: Batching) -> str:
    if batching.max_size == 1:
        return "every request has a run of its own: the manifest's max_size is 1"
    shared = "requests that wait when a run ends share the next one"
    if not batching.max_delay_ms:
        return f"{shared}; none is ever held for others, as max_delay_ms is 0"
    if batching.adaptive:
        return (
            f"{shared}; the first is held up to {batching.max_delay_ms} ms for as many as were "
            "just answered together, and never on an idle worker"
        )
    return f"{shared}; the first is always held up to {batching.max_delay_ms} ms for a full batch"


def _window(max_size: int, proof: Proof | None) -> Setting:
    fastest_ms = min((case.milliseconds for case in proof.times), default=0.0) if proof else 0.0
    size = window(fastest_ms, max_size)
    value = f"{size} requests"
    if size == window(0.0, max_size):
        one = "batch" if max_size > 1 else "request"
        return Setting("window", value, f"travel at once: one {one} runs, the next is at hand")
    return Setting(
        "window",
        value,
        f"travel at once: {WINDOW_MS:g} ms of work at {fastest_ms:.3g} ms each, as proven here",
    )
