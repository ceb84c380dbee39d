"""The inference log and traces as configured: what does not fit, and what is on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from superbrain.app import record_settings
from superbrain.app.config import ConfigError, load_config
from superbrain.app.record_settings import TracesUnavailable
from superbrain.cli.main import main
from superbrain.domain.records import InferenceLogPolicy, RecordPolicy, TracesPolicy

URL = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[inference_log]\nto = "syslog"', "inference_log.to"),
        ("[inference_log]\nshare = 1.5", "inference_log.share of 0 to 1, found 1.5"),
        ("[inference_log]\nfailures_per_s = -1.0", "inference_log.failures_per_s"),
        ("[inference_log]\npayload_bytes = 2000000", "inference_log.payload_bytes"),
        ('[inference_log]\nto = "journal"\npayload_bytes = 10', "inference_log.payload_bytes"),
        ('[inference_log]\npath = "here.jsonl"', "inference_log.path"),
        ("[inference_log]\nfile_mib = 0", "inference_log.file_mib"),
        ("[inference_log]\nfiles = 0", "inference_log.files"),
        ("[traces]\nratio = -0.1", "traces.ratio"),
        ('[traces]\nprotocol = "http/json"', "traces.protocol http/protobuf or grpc"),
        ('[traces]\nendpoint = "127.0.0.1:4318"', "traces.endpoint like http"),
        ('[traces]\nendpoint = "http://:4318"', "traces.endpoint like http"),
        ('[traces]\nendpoint = "http://host:port"', "traces.endpoint like http"),
        ("[traces]\nrate = 1", "traces.rate is unknown"),
    ],
)
def test_what_cannot_be_meant_is_an_error_with_its_key(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "superbrain.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_config(file, environment={})


def test_nothing_is_told_unless_it_is_asked_for() -> None:
    policy = record_settings.policy(InferenceLogPolicy(), TracesPolicy(ratio=1.0), {})
    assert policy == RecordPolicy()
    assert not policy.on


def test_each_is_on_by_itself() -> None:
    log = InferenceLogPolicy(to="file", share=0.5)
    assert record_settings.policy(log, TracesPolicy(), {}) == RecordPolicy(
        log=True, log_share=0.5, failures_per_s=10.0
    )
    traces = TracesPolicy(endpoint=URL, ratio=0.1)
    assert record_settings.policy(InferenceLogPolicy(), traces, {}) == RecordPolicy(
        traces=True, trace_ratio=0.1
    )


@pytest.mark.parametrize(
    ("endpoint", "environment", "on"),
    [
        ("", {}, False),
        (URL, {}, True),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, True),
        ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, True),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (URL, {"OTEL_SDK_DISABLED": "true"}, False),
        (URL, {"OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_the_standard_variables_count(endpoint: str, environment: dict[str, str], on: bool) -> None:
    assert record_settings.exported(TracesPolicy(endpoint=endpoint), environment) is on


def test_the_protocol_is_that_of_whoever_named_the_endpoint() -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert record_settings.protocol(TracesPolicy(), environment) == "grpc"
    assert record_settings.protocol(TracesPolicy(endpoint=URL), environment) == "http/protobuf"
    assert record_settings.protocol(TracesPolicy(), {}) == "http/protobuf"
    environment["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"
    assert record_settings.protocol(TracesPolicy(), environment) == "http/protobuf"


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing of OpenTelemetry be installed."""

    def find(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)


@pytest.mark.usefixtures("without_packages")
def test_an_endpoint_without_the_packages_is_an_error_that_names_the_extra() -> None:
    with pytest.raises(TracesUnavailable, match=r"traces\.endpoint is set") as caught:
        record_settings.check_packages(TracesPolicy(endpoint=URL), {})
    assert "superbrain[otel]" in caught.value.mend
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}
    with pytest.raises(TracesUnavailable, match="OTEL_EXPORTER_OTLP_ENDPOINT is set"):
        record_settings.check_packages(TracesPolicy(), variables)
    record_settings.check_packages(TracesPolicy(), {})


@pytest.mark.usefixtures("without_packages")
def test_config_check_says_so_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "superbrain.toml"
    file.write_text(f'[traces]\nendpoint = "{URL}"\n')
    assert main(["config", "check", "--config", str(file)]) == 1
    told = capsys.readouterr()
    assert "opentelemetry.sdk.trace" in told.err + told.out
    assert "superbrain[otel]" in told.err + told.out


def test_config_check_is_content_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not installed")
    file = tmp_path / "superbrain.toml"
    file.write_text(f'[traces]\nendpoint = "{URL}"\nprotocol = "grpc"\n')
    assert main(["config", "check", "--config", str(file)]) == 0
    assert "traces.endpoint" in capsys.readouterr().out
