"""What of docs/, systemd/ and bundles/ is generated, and how: one row of `GENERATED` for each.

A generator gets what the file holds now (empty when there is none) and returns what it should
hold. Whole files ignore what was there; a part of a hand-written page is replaced between two
marks that the page carries, with `part`:

    <!-- generated: states -->
    …
    <!-- end of generated: states -->

Run it by scripts/docs; tests/unit/test_generated_docs.py holds every file to its generator.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from superbrain.app.config import Config
from superbrain.app.config_keys import KEYS, default_file, toml_value, values
from superbrain.cli.template.sources import source_of
from superbrain.domain import deployment as life
from superbrain.domain.diagnosis import Diagnosis
from superbrain.domain.health import Health
from superbrain.domain.metrics import METRICS
from superbrain.host.events import Event

ROOT = Path(__file__).resolve().parent.parent


class Generated(NamedTuple):
    """One generated file: where it lies, and what it should hold, given what it holds now."""

    path: str
    make: Callable[[str], str]


def part(page: str, name: str, text: str) -> str:
    """Replace what stands between the marks of `name` in `page`.

    Raises:
        ValueError: the page does not carry both marks exactly once, in order.
    """
    begin, end = f"<!-- generated: {name} -->", f"<!-- end of generated: {name} -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or begin in after:
        raise ValueError(f"expected {begin!r} and {end!r} once each, in this order")
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


def health_schema(_now: str = "") -> str:
    """docs/health.schema.json: the JSON Schema of the health report."""
    made = msgspec.json.schema(Health)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "superbrain health report",
        "description": "health.json, the answer of the control socket, superbrain status --json.",
        **made,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def doctor_schema(_now: str = "") -> str:
    """docs/doctor.schema.json: the JSON Schema of `superbrain doctor --json`."""
    made = msgspec.json.schema(Diagnosis)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "superbrain diagnosis of a host",
        "description": "superbrain doctor --json.",
        **made,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def log_events(_now: str = "") -> str:
    """docs/log-events.md: the stable names of log events."""
    rows = "\n".join(f"| `{event}` | {event.meaning} |" for event in Event)
    return f"""\
# Log events

The daemon logs one JSON object a line to standard error, what its children tell included. Under
systemd it gives each record to the journal with its fields instead: `event` is
`SUPERBRAIN_EVENT`, `model` is `SUPERBRAIN_MODEL`, and so on. `event` is one of the names below; a
released name keeps its meaning. What a library or bundle code logs by itself has the event `log`.

```bash
sudo journalctl -u superbraind SUPERBRAIN_EVENT=worker_died SUPERBRAIN_MODEL=ocr
sudo journalctl -u superbraind -o json SUPERBRAIN_EVENT=deployment_advanced | jq .SUPERBRAIN_STATE
```

Of a daemon that was started by hand, `superbraind … 2>daemon.log`:

```sh
grep '"event": *"deployment_advanced"' daemon.log
```

| event | when |
|---|---|
{rows}
"""


def states(now: str) -> str:
    """docs/architecture.md, part `states`: the transition table, as a diagram and as a table."""
    return part(now, "states", f"{_state_diagram()}\n\n{_state_table()}")


def _state_diagram() -> str:
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, row in life.TABLE.items():
        for event, target in row.items():
            arrows.setdefault((state, target), []).append(event.__name__)
    for state, event in sorted(life.NEXT_RUNG, key=lambda pair: (pair[0], pair[1].__name__)):
        arrows.setdefault((state, life.State.BUILDING), []).append(f"{event.__name__} (next rung)")
    lines = [f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in arrows.items()]
    ends = [f"    {state} --> [*]" for state in life.State if state in life.ENDED]
    return "\n".join(
        ["```mermaid", "stateDiagram-v2", "    [*] --> RECEIVED", *lines, *ends, "```"]
    )


def _state_table() -> str:
    lines = ["| state | on entry | event → next |", "|---|---|---|"]
    for state, row in life.TABLE.items():
        entry = ", ".join(type(command).__name__ for command in life.ON_ENTRY[state]) or "–"
        steps = []
        for event, target in row.items():
            rung = "next rung, else " if (state, event) in life.NEXT_RUNG else ""
            steps.append(f"{event.__name__} → {rung}{target}")
        lines.append(f"| {state} | {entry} | {' · '.join(steps) or 'none'} |")
    return "\n".join(lines)


def configuration(now: str) -> str:
    """docs/operations.md, part `configuration`: every key."""
    usual = values(Config())
    rows = [
        f"| `{key}` | `{toml_value(usual[key])}` | {of.within.text if of.within else ''} | "
        f"{of.meaning} | {of.applies} |"
        for key, of in KEYS.items()
    ]
    head = ["| key | default | range | meaning | a change takes |", "|---|---|---|---|---|"]
    return part(now, "configuration", "\n".join(head + rows))


def metrics(now: str) -> str:
    """docs/metrics.md, part `metrics`: every metric."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{one}`' for one in metric.labels)} | "
        f"{metric.meaning} |"
        for metric in METRICS
    ]
    head = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    return part(now, "metrics", "\n".join(head + rows))


def default_configuration(_now: str = "") -> str:
    """systemd/superbrain.toml: the commented file that an installation begins with."""
    return default_file(Config())


def from_template(file: str, **constants: object) -> Callable[[str], str]:
    """Code of a sample bundle: a template's file, with these constants."""
    return lambda _now: source_of(file, constants)


GENERATED: tuple[Generated, ...] = (
    Generated("docs/health.schema.json", health_schema),
    Generated("docs/doctor.schema.json", doctor_schema),
    Generated("docs/log-events.md", log_events),
    Generated("docs/architecture.md", states),
    Generated("docs/operations.md", configuration),
    Generated("docs/metrics.md", metrics),
    Generated("systemd/superbrain.toml", default_configuration),
    Generated("bundles/ocr/code/pipeline.py", from_template("ocr/pipeline.py", CLS="cls")),
    Generated("bundles/ocr/code/detect.py", from_template("ocr/detect.py")),
    Generated("bundles/ocr/code/crop.py", from_template("ocr/crop.py")),
    Generated("bundles/ocr/code/upright.py", from_template("ocr/upright.py")),
    Generated("bundles/ocr/code/recognise.py", from_template("ocr/recognise.py")),
    Generated("bundles/ocr/code/picture.py", from_template("shared/picture.py")),
    Generated("bundles/ocr/code/sizes.py", from_template("shared/sizes.py")),
)


def wanted(generated: Generated) -> tuple[str, str]:
    """What the file holds now, and what it should hold."""
    path = ROOT / generated.path
    now = path.read_text(encoding="utf-8") if path.exists() else ""
    return now, generated.make(now)


def main(arguments: list[str]) -> int:
    """Write what is stale; with --check only say what is."""
    check = arguments == ["--check"]
    stale = 0
    for generated in GENERATED:
        now, should = wanted(generated)
        if now == should:
            continue
        stale += 1
        if check:
            print(f"{generated.path} is stale; type: scripts/docs")
        else:
            path = ROOT / generated.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(should, encoding="utf-8")
            print(f"{generated.path} is written")
    if not stale:
        print(f"{len(GENERATED)} generated files are up to date")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
