"""The Prometheus text format, held to the reader of those who made it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from superbrain.domain.durations import BOUNDS_NS, Histogram
from superbrain.domain.exposition import Family, Sample, text
from tests.support.reports import durations


def read(*families: Family) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text(families))
        for sample in family.samples
    }


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_label_value_comes_out_as_it_went_in(value: str) -> None:
    family = Family("name", "gauge", "A meaning.", [Sample({"label": value}, 1)])
    (parsed,) = text_string_to_metric_families(text([family]))
    assert parsed.samples[0].labels == {"label": value}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "1"),
        (1_795_646_052.018827, "1795646052.018827"),
        (1e-9, "1e-09"),
        (10**15, "1000000000000000"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_are_written_exactly(value: float, written: str) -> None:
    assert text([Family("name", "gauge", "", [Sample({}, value)])]).endswith(f"\nname {written}\n")


def test_a_meaning_with_a_line_break_stays_one_line() -> None:
    lines = text([Family("name", "gauge", "one\ntwo \\ three", [Sample({}, 1)])]).splitlines()
    assert lines == ["# HELP name one\\ntwo \\\\ three", "# TYPE name gauge", "name 1"]


def test_a_metric_without_values_is_left_out() -> None:
    assert not text([Family("name", "gauge", "A meaning.", [])])


def test_buckets_are_cumulative_and_end_at_the_count() -> None:
    histogram = Histogram([1, 2, *[0] * (len(BOUNDS_NS) - 2), 4], 123_000_000)
    found = read(Family("name", "histogram", "", [Sample({"model": "ocr"}, histogram)]))
    assert found["name_bucket", ("ocr", "0.0001")] == 1
    assert found["name_bucket", ("ocr", "0.00025")] == 3
    assert found["name_bucket", ("ocr", "30")] == 3
    assert found["name_bucket", ("ocr", "+Inf")] == found["name_count", ("ocr",)] == 7
    assert found["name_sum", ("ocr",)] == 0.123


def test_a_duration_on_a_bound_is_within_its_bucket() -> None:
    found = read(Family("name", "histogram", "", [Sample({}, durations(3, 10))]))
    assert (found["name_bucket", ("0.005",)], found["name_bucket", ("0.01",)]) == (0, 3)
