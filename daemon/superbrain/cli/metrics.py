"""`superbrain metrics`: the health report as Prometheus metrics."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from superbrain.cli.control import add_control_options, control_client
from superbrain.cli.display import print_json
from superbrain.domain import metrics
from superbrain.domain.durations import Histogram
from superbrain.domain.operations import GetHealth, HealthReply

_EXAMPLES = """\
examples:
  superbrain metrics
  superbrain metrics | grep requests_total
  superbrain metrics --json | jq '.[] | select(.name == "superbrain_ready")'

docs/metrics.md lists every metric. `metrics.file` in the configuration has them written to a
file for node_exporter, `metrics.listen` serves them by HTTP.
"""


class Value(msgspec.Struct, frozen=True):
    """One value as JSON."""

    name: str
    labels: dict[str, str]
    value: float | Histogram


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `metrics`."""
    parser = commands.add_parser(
        "metrics",
        help="the health report as Prometheus metrics",
        description="Print the metrics of this host in the Prometheus text format.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list of values instead")
    add_control_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask for the health report and print it as metrics."""
    health = control_client(args).ask(GetHealth(), HealthReply).health
    if not args.json:
        print(metrics.text(health), end="")
        return 0
    families = [metric.family(health) for metric in metrics.METRICS]
    values = [
        Value(family.name, dict(sample.labels), sample.value)
        for family in families
        for sample in family.samples
    ]
    print_json(values)
    return 0
