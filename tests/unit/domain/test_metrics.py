"""The metrics of a report: conventional, readable, complete; what rules and dashboard ask for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric as Parsed
from prometheus_client.parser import text_string_to_metric_families

from superbrain.domain.durations import STAGES
from superbrain.domain.metric import Metric
from superbrain.domain.metrics import METRICS, text
from tests.support.reports import busy_health, full_health, sample_health

MONITORING = Path(__file__).resolve().parents[3] / "docs" / "monitoring"
ALERTS = MONITORING / "alerts.yml"
DASHBOARD = MONITORING / "grafana-dashboard.json"
NAME = re.compile(r"superbrain_[a-z0-9_]+")
UNITS = ("_seconds", "_bytes", "_ratio", "_celsius", "_watts")
# What counts things has no unit.
BARE = re.compile(
    r"_(info|ready|state|slower|up|problems|files|requests|workers|deployments|threads|fds|clients)$"
)


@pytest.fixture(scope="module")
def families() -> dict[str, Parsed]:
    return {family.name: family for family in text_string_to_metric_families(text(full_health()))}


def value(families: dict[str, Parsed], name: str, **labels: str) -> float:
    family = families[name.removesuffix("_total")]
    found = [one for one in family.samples if labels.items() <= one.labels.items()]
    return sum(sample.value for sample in found if sample.name in {name, f"{name}_count"})


def test_files_of_the_inbox_count_whether_they_are_listed_or_not() -> None:
    health = busy_health(inbox_more={"refused": 250})
    assert 'superbrain_inbox_files{outcome="refused"} 251' in text(health).splitlines()


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_name_keeps_the_conventions(metric: Metric) -> None:
    assert NAME.fullmatch(metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    bare = metric.name.removesuffix("_total")
    if metric.kind == "histogram":
        assert bare.endswith("_seconds")
    elif metric.kind == "gauge":
        assert bare.endswith(UNITS) or BARE.search(bare)
    assert not {"le", "quantile", "instance", "job"} & set(metric.labels)
    assert re.fullmatch(r"[A-Z0-9].*\.", metric.meaning)


def test_no_name_is_there_twice() -> None:
    assert not [name for name, n in Counter(one.name for one in METRICS).items() if n > 1]


def test_a_report_that_knows_everything_has_every_metric(families: dict[str, Parsed]) -> None:
    assert {one.name.removesuffix("_total") for one in METRICS} == set(families)
    assert {one.name: one.kind for one in METRICS}.items() >= {
        (f"{name}_total" if family.type == "counter" else name, family.type)
        for name, family in families.items()
    }


def test_no_series_is_there_twice(families: dict[str, Parsed]) -> None:
    series = Counter(
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in families.values()
        for sample in family.samples
    )
    assert not [one for one, n in series.items() if n > 1]


# --- values ---------------------------------------------------------------------------------------


def test_requests_are_told_by_version_and_outcome(families: dict[str, Parsed]) -> None:
    name = "superbrain_requests_total"
    assert value(families, name, model="ocr", version="3.0.0", outcome="ok") == 900
    assert value(families, name, model="ocr", version="3.0.1", outcome="caller_error") == 2


def test_stages_have_the_same_count_and_add_up_to_the_latency(families: dict[str, Parsed]) -> None:
    def total(name: str, **labels: str) -> float:
        family = families[name]
        return next(
            sample.value
            for sample in family.samples
            if sample.name == f"{name}_sum" and labels.items() <= sample.labels.items()
        )

    version = {"model": "ocr", "version": "3.0.1"}
    parts = [
        total("superbrain_request_duration_seconds", **version, stage=stage) for stage in STAGES
    ]
    assert parts == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert sum(parts) == pytest.approx(total("superbrain_request_latency_seconds", **version))
    for stage in STAGES:
        assert value(families, "superbrain_request_duration_seconds", **version, stage=stage) == 100


def test_a_model_is_in_one_state(families: dict[str, Parsed]) -> None:
    name = "superbrain_model_state"
    assert value(families, name, model="speech-detection", state="unavailable") == 1
    assert value(families, name, model="speech-detection") == 1


def test_ratios_times_and_flags_have_their_units(families: dict[str, Parsed]) -> None:
    health = full_health()
    assert value(families, "superbrain_host_cpu_ratio") == 0.31
    assert value(families, "superbrain_gpu_utilization_ratio", gpu="0") == 0.22
    assert value(families, "superbrain_deployment_progress_ratio", model="ocr") == 0.37
    assert value(families, "superbrain_report_timestamp_seconds") == health.at.timestamp()
    assert value(families, "superbrain_ready") == 0
    assert value(families, "superbrain_process_cpu_seconds_total", process="worker") == 812.5


def test_incidents_and_deployments_begin_at_zero_and_do_not_appear(
    families: dict[str, Parsed],
) -> None:
    name = "superbrain_incidents_total"
    assert value(families, name, model="ocr", kind="WorkerHung") == 1
    labels = [sample.labels for sample in families["superbrain_incidents"].samples]
    assert {"model": "orientation", "kind": "LeakFound"} in labels
    assert value(families, "superbrain_swaps_total", model="ocr") == 3


def test_what_is_not_known_is_left_out() -> None:
    found = text(sample_health())
    for name in ("superbrain_gpu_", "superbrain_tcp_", "process_cpu_seconds", "reproof"):
        assert name not in found
    assert "superbrain_request_latency_seconds" not in found


# --- rules and dashboard --------------------------------------------------------------------------


def expressions() -> Iterator[tuple[str, str]]:
    """Where a metric is asked for, and how."""
    for block in ALERTS.read_text().split("- alert: ")[1:]:
        yield f"alert {block.split()[0]}", block.partition("expr:")[2].partition("labels:")[0]
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"][1:]:
        yield f"variable {variable['name']}", variable["definition"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]


def labels_of(family: Parsed) -> set[str]:
    return {label for sample in family.samples for label in sample.labels} | {"instance", "job"}


def test_rules_and_dashboard_ask_only_for_metrics_and_labels_that_there_are(
    families: dict[str, Parsed],
) -> None:
    output = {sample.name: labels_of(one) for one in families.values() for sample in one.samples}
    asked = list(expressions())
    assert len(asked) > 60
    for where, expression in asked:
        names = NAME.findall(expression)
        assert names, where
        for name in names:
            assert name in output, f"{where} asks for {name}, which is in no output"
        for name, selector in re.findall(r"(superbrain_\w+)\{([^}]*)\}", expression):
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
                assert label in output[name], f"{where} selects {label} of {name}"
        for grouping in re.findall(r"by \(([^)]*)\)", expression):
            known = set().union(*(output[name] for name in names))
            assert set(grouping.replace(" ", "").split(",")) <= known, where


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for block in ALERTS.read_text().split("- alert: ")[1:]:
        assert re.search(r"severity: (critical|warning) }", block), block
        assert "summary:" in block, block
        assert "description:" in block, block


def test_values_that_rules_name_are_there(families: dict[str, Parsed]) -> None:
    values = {
        (label, content)
        for family in families.values()
        for sample in family.samples
        for label, content in sample.labels.items()
    }
    for where, expression in expressions():
        for label, content in re.findall(r'(\w+)(?:=~|!=|=)"([^"$]+)"', expression):
            for one in content.split("|"):
                assert (label, one) in values, f"{where} asks for {label} {one}"


def test_the_dashboard_has_every_panel_in_a_place_of_its_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    return subprocess.run(
        [tool, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False
    )


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    found = promtool("check", "rules", "--lint-fatal", str(ALERTS))
    assert found.returncode == 0, found.stdout + found.stderr


def test_promtool_finds_nothing_wrong_with_the_metrics() -> None:
    found = promtool("check", "metrics", given=text(full_health()))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
