"""The Prometheus text format 0.0.4: metric families in, text out.

https://prometheus.io/docs/instrumenting/exposition_formats/

>>> up = Family("superbrain_up", "gauge", "Whether it is up.", [Sample({"model": "ocr"}, 1)])
>>> print(text([up]), end="")
# HELP superbrain_up Whether it is up.
# TYPE superbrain_up gauge
superbrain_up{model="ocr"} 1
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from superbrain.domain.durations import BOUNDS_NS, Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
Kind = Literal["counter", "gauge", "histogram"]

_ESCAPED: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
_ESCAPED_HELP: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_SECOND_NS: Final = 1_000_000_000
_BOUNDS: Final = (*(f"{bound_ns / _SECOND_NS:g}" for bound_ns in BOUNDS_NS), "+Inf")


class Sample(NamedTuple):
    """One value with its labels."""

    labels: Mapping[str, str]
    value: float | Histogram


class Family(NamedTuple):
    """All samples of one metric."""

    name: str
    kind: Kind
    meaning: str
    samples: Iterable[Sample]


def text(families: Iterable[Family]) -> str:
    """Write families as a scraper reads them; one without samples is left out."""
    return "".join(line for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    samples = list(family.samples)
    if not samples:
        return
    yield f"# HELP {family.name} {family.meaning.translate(_ESCAPED_HELP)}\n"
    yield f"# TYPE {family.name} {family.kind}\n"
    for sample in samples:
        if isinstance(sample.value, Histogram):
            yield from _histogram(family.name, sample.labels, sample.value)
        else:
            yield f"{family.name}{_labels(sample.labels)} {_number(sample.value)}\n"


def _histogram(name: str, labels: Mapping[str, str], histogram: Histogram) -> Iterator[str]:
    """Cumulative buckets; the last one and the count are made of the same numbers."""
    below = 0
    for bound, count in zip(_BOUNDS, histogram.counts, strict=True):
        below += count
        yield f"{name}_bucket{_labels({**labels, 'le': bound})} {below}\n"
    yield f"{name}_sum{_labels(labels)} {_number(histogram.sum_ns / _SECOND_NS)}\n"
    yield f"{name}_count{_labels(labels)} {below}\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{value.translate(_ESCAPED)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _number(value: float) -> str:
    """Whole numbers without a point; everything else exactly, NaN and infinities as Go writes."""
    if value != value:  # noqa: PLR0124 - NaN is what differs from itself
        return "NaN"
    if value in {float("inf"), float("-inf")}:
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
