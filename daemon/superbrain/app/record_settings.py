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

from superbrain.app.config_keys import Misfit
from superbrain.domain.records import InferenceLogPolicy, RecordPolicy, TracesPolicy, record_policy
from superbrain.wire.errors import SuperbrainError

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
KNOWN_PROTOCOLS: Final = ("http/protobuf", "grpc")
_DISABLED: Final = "OTEL_SDK_DISABLED"
_NEEDED: Final = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}


class TracesUnavailable(SuperbrainError):
    """Spans are to be exported, and the packages for it are not installed."""


def misfits(log: InferenceLogPolicy, traces: TracesPolicy) -> Iterator[Misfit]:
    """Say what cannot be meant, beyond single numbers, each with what to do about it."""
    yield from _log_misfits(log)
    yield from _trace_misfits(traces)


def _log_misfits(log: InferenceLogPolicy) -> Iterator[Misfit]:
    if log.to not in {"", "file", "journal"}:
        expected = 'expected inference_log.to "file", "journal" or ""'
        yield Misfit(("inference_log.to",), f"{expected}, found {log.to!r}")
    if log.payload_bytes and log.to == "journal":
        yield Misfit(
            ("inference_log.to", "inference_log.payload_bytes"),
            'expected inference_log.to = "file" with inference_log.payload_bytes, found "journal"',
            "The journal is read by more people than may see what was asked; the file is not",
        )
    if log.path and not Path(log.path).is_absolute():
        expected = "expected inference_log.path to be an absolute path"
        yield Misfit(("inference_log.path",), f"{expected}, found {log.path!r}")


def _trace_misfits(traces: TracesPolicy) -> Iterator[Misfit]:
    if traces.protocol not in KNOWN_PROTOCOLS:
        expected = f"expected traces.protocol {' or '.join(KNOWN_PROTOCOLS)}"
        yield Misfit(("traces.protocol",), f"{expected}, found {traces.protocol!r}")
    if traces.endpoint and not _is_url(traces.endpoint):
        yield Misfit(
            ("traces.endpoint",),
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
