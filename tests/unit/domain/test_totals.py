"""Totals that outlive the processes they were counted in."""

from __future__ import annotations

from superbrain.domain.ctl import GatewayPong, ModelTraffic, Quantiles, WorkerPong
from superbrain.domain.durations import STAGES
from superbrain.domain.totals import KEPT_VERSIONS, GatewayTotals, VersionTotals
from tests.support.reports import durations

NONE = WorkerPong()


def pong(ok: int) -> WorkerPong:
    stages = {stage: durations(ok, 1) for stage in STAGES}
    return WorkerPong(requests=ok, ok=ok, runs=ok, latency=durations(ok, 4), stages=stages)


def traffic(requests: int, model: str = "ocr") -> ModelTraffic:
    return ModelTraffic(model, requests, requests, 1, 0, 0, 0, Quantiles(), durations(requests, 2))


# --- workers --------------------------------------------------------------------------------------


def test_a_worker_that_is_replaced_takes_nothing_away() -> None:
    totals = VersionTotals()
    totals.add("1.0.0", pong(5), NONE)
    totals.add("1.0.0", pong(7), pong(5))
    totals.add("1.0.0", pong(2), NONE)  # its successor
    (facts,) = totals.facts()
    assert (facts.ok, facts.runs, facts.latency.count, facts.latency.sum_ns) == (
        9,
        9,
        9,
        36_000_000,
    )
    assert {stage: one.count for stage, one in facts.stages.items()} == dict.fromkeys(STAGES, 9)


def test_two_workers_are_added_up() -> None:
    totals = VersionTotals()
    totals.add("1.0.0", pong(5), NONE)
    totals.add("1.0.0", pong(3), NONE)
    totals.add("1.0.0", pong(6), pong(5))
    assert totals.facts()[0].ok == 9


def test_versions_are_counted_apart_and_the_newest_are_kept() -> None:
    totals = VersionTotals()
    for number in range(KEPT_VERSIONS + 2):
        totals.add(f"{number}.0.0", pong(number + 1), NONE)
    kept = [facts.version for facts in totals.facts()]
    assert kept == [f"{number}.0.0" for number in range(2, KEPT_VERSIONS + 2)]


def test_a_version_that_comes_back_goes_on_where_it_was() -> None:
    totals = VersionTotals()
    totals.add("1.0.0", pong(5), NONE)
    totals.add("2.0.0", pong(5), NONE)
    totals.add("1.0.0", pong(1), NONE)
    assert {facts.version: facts.ok for facts in totals.facts()} == {"2.0.0": 5, "1.0.0": 6}


def test_a_worker_that_has_loaded_nothing_counts_nothing() -> None:
    totals = VersionTotals()
    totals.add("1.0.0", NONE, NONE)
    assert totals.facts()[0].latency.count == 0


# --- gateway --------------------------------------------------------------------------------------


def test_another_gateway_goes_on_where_the_last_one_was() -> None:
    totals = GatewayTotals()
    totals.add(GatewayPong([traffic(5)], malformed=2))
    totals.begin_anew()
    totals.add(GatewayPong([traffic(7)], malformed=1))  # more than the last one had: no matter
    assert (totals.of("ocr").requests, totals.of("ocr").errors, totals.malformed) == (12, 2, 3)
    assert totals.of("ocr").latency.count == 12


def test_a_model_that_was_retired_and_came_back_goes_on() -> None:
    totals = GatewayTotals()
    totals.add(GatewayPong([traffic(5)]))
    totals.add(GatewayPong([]))
    totals.add(GatewayPong([traffic(2)]))
    assert totals.of("ocr").requests == 7


def test_it_also_goes_on_when_nobody_looked_in_between() -> None:
    totals = GatewayTotals()
    totals.add(GatewayPong([traffic(5)]))
    totals.add(GatewayPong([traffic(2)]))
    assert totals.of("ocr").requests == 7


def test_an_unknown_model_has_had_no_traffic() -> None:
    assert GatewayTotals().of("ocr").requests == 0
