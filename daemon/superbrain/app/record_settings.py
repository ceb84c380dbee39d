"""The inference log and the export of spans, as configured: what does not fit, and what is on.

Spans go to the collector of `traces.endpoint`, or to the one that OpenTelemetry's own variables
name. Both need the packages of the extra `otel`, which is said before anything starts.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from superbrain.domain.records import InferenceLogPolicy, RecordPolicy, TracesPolicy, record_policy
from superbrain.wire.errors import SuperbrainError

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
KNOWN_PROTOCOLS: Final = ("http/protobuf", "grpc")
MAX_PAYLOAD_BYTES: Final = 1 << 20
_DISABLED: Final = "OTEL_SDK_DISABLED"
_NEEDED: Final = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}


class TracesUnavailable(SuperbrainError):
    """Spans are to be exported, and the packages for it are not installed."""


def misfits(log: InferenceLogPolicy, traces: TracesPolicy) -> Iterator[tuple[str, str]]:
    """Say what cannot be meant, each with what to do about it."""
    yield from _log_misfits(log)
    yield from _trace_misfits(traces)


def _log_misfits(log: InferenceLogPolicy) -> Iterator[tuple[str, str]]:
    if log.to not in {"", "file", "journal"}:
        yield f'expected inference_log.to "file", "journal" or "", found {log.to!r}', ""
    if not 0 <= log.share <= 1:
        yield (
            f"expected inference_log.share of 0 to 1, found {log.share}",
            "0.01 is every hundredth",
        )
    if log.failures_per_s < 0:
        yield f"expected inference_log.failures_per_s of 0 or more, found {log.failures_per_s}", ""
    if not 0 <= log.payload_bytes <= MAX_PAYLOAD_BYTES:
        expected, found = f"0 to {MAX_PAYLOAD_BYTES}", log.payload_bytes
        yield f"expected inference_log.payload_bytes of {expected}, found {found}", ""
    if log.payload_bytes and log.to == "journal":
        yield (
            'expected inference_log.to = "file" with inference_log.payload_bytes, found "journal"',
            "The journal is read by more people than may see what was asked; the file is not",
        )
    if log.path and not Path(log.path).is_absolute():
        yield f"expected inference_log.path to be an absolute path, found {log.path!r}", ""
    for key in ("file_mib", "files"):
        if getattr(log, key) < 1:
            yield f"expected inference_log.{key} of 1 or more, found {getattr(log, key)}", ""


def _trace_misfits(traces: TracesPolicy) -> Iterator[tuple[str, str]]:
    if not 0 <= traces.ratio <= 1:
        yield f"expected traces.ratio of 0 to 1, found {traces.ratio}", "0.01 is every hundredth"
    if traces.protocol not in KNOWN_PROTOCOLS:
        known = " or ".join(KNOWN_PROTOCOLS)
        yield f"expected traces.protocol {known}, found {traces.protocol!r}", ""
    if traces.endpoint and not _is_url(traces.endpoint):
        yield (
            f"expected traces.endpoint like http://127.0.0.1:4318, found {traces.endpoint!r}",
            "Name scheme, host and port of an OTLP collector; 4318 is HTTP, 4317 gRPC",
        )


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def exported(traces: TracesPolicy, environment: Mapping[str, str] | None = None) -> bool:
    """Whether spans go anywhere."""
    environment = os.environ if environment is None else environment
    if environment.get(_DISABLED, "").strip().lower() == "true":
        return False
    return bool(traces.endpoint or any(environment.get(name) for name in ENDPOINTS))


def protocol(traces: TracesPolicy, environment: Mapping[str, str] | None = None) -> str:
    """Give the protocol: OpenTelemetry's variables count where the endpoint is theirs too."""
    environment = os.environ if environment is None else environment
    named = next((environment[name] for name in PROTOCOLS if environment.get(name)), "")
    return named if named in KNOWN_PROTOCOLS and not traces.endpoint else traces.protocol


def policy(
    log: InferenceLogPolicy, traces: TracesPolicy, environment: Mapping[str, str] | None = None
) -> RecordPolicy:
    """Say of which requests there are records."""
    return record_policy(log, traces, exported=exported(traces, environment))


def check_packages(traces: TracesPolicy, environment: Mapping[str, str] | None = None) -> None:
    """See that what a configured export needs is installed.

    Raises:
        TracesUnavailable: it is not.
    """
    if not exported(traces, environment):
        return
    needed = _NEEDED[protocol(traces, environment)]
    for module in ("opentelemetry.sdk.trace", needed):
        if not _installed(module):
            where = "traces.endpoint" if traces.endpoint else "OTEL_EXPORTER_OTLP_ENDPOINT"
            raise TracesUnavailable(
                f"{where} is set, so spans are to be exported: expected the module {module}, "
                "found it not installed",
                mend="pip install 'superbrain[otel]', on an appliance install.sh --traces; or take "
                "the setting away",
            )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False
