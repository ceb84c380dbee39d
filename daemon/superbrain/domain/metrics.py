"""All metrics, and a health report written as metrics.

All of them are made of the report alone, so whoever has a report has the metrics: a file for
node_exporter, the HTTP endpoint, `superbrain metrics`. Names and units are those of the Prometheus
conventions: seconds, bytes and ratios; counters end in `_total` and begin anew with the daemon.

A name, once released, keeps its meaning. The table in docs/operations.md is made of these.
"""

from __future__ import annotations

from typing import Final

from superbrain.domain import exposition, metrics_host, metrics_models, metrics_traffic
from superbrain.domain.health import Health
from superbrain.domain.metric import Metric

METRICS: Final[tuple[Metric, ...]] = (
    *metrics_host.METRICS,
    *metrics_models.METRICS,
    *metrics_traffic.METRICS,
)


def text(health: Health) -> str:
    """Write a report in the Prometheus text format."""
    return exposition.text(metric.family(health) for metric in METRICS)
