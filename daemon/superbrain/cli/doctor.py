"""`superbrain doctor`: whether this host is fit, what it can run, and what would make it better.

It looks at the machine, at GPUs and runtimes (in child processes, for their libraries may crash),
at superbrain's folders and keys, and asks the daemon where one runs. It changes nothing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime as dt
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import superbrain
from superbrain.cli.actions import add_action
from superbrain.cli.control import DEFAULT_ENDPOINT, ControlClient, add_control_options
from superbrain.cli.display import make_console, print_json, show
from superbrain.cli.doctor_places import (
    daemon_finding,
    find_configuration,
    place_findings,
    this_user,
)
from superbrain.cli.doctor_view import doctor_view
from superbrain.cli.numbers import seconds
from superbrain.domain.diagnosis import Diagnosis, Section, ok, worst
from superbrain.domain.engine_findings import (
    gpu_findings,
    rung_findings,
    rungs_of,
    runtime_findings,
)
from superbrain.domain.machine import machine_findings
from superbrain.domain.probe import GpuFigures, Unanswered
from superbrain.engines.probe import ask_child, probe_engines
from superbrain.host.machine import nvidia_hardware, read_machine

if TYPE_CHECKING:
    from superbrain.domain.diagnosis import Finding
    from superbrain.domain.health import GpuFacts, Health

PROBE_TIMEOUT_S: Final = 60.0
RUNGS_CHILD: Final = "superbrain.serve.probe_process"
_GPU_CHILD: Final = "superbrain.host.gpu_child"
_EXAMPLES: Final = """\
exit codes: 0 nothing has to be mended (notes are no problems), 1 something has

examples:
  superbrain doctor
  sudo superbrain doctor                   with what is private to the service
  superbrain doctor --root DIR             of a daemon that was started with --root DIR
  superbrain doctor --json | jq '.sections[].findings[] | select(.verdict == "problem")'
  superbrain doctor --json | jq '.rungs[] | select(.possible | not)'
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `doctor`."""
    summary = "is this host fit, and what can it run: every finding with a verdict and a mend"
    parser = add_action(commands, "doctor", summary, _EXAMPLES)
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
    parser.add_argument("--root", type=Path, metavar="DIR", help="as superbraind --root DIR")
    parser.add_argument(
        "--probe-timeout",
        type=seconds(3600),
        default=PROBE_TIMEOUT_S,
        metavar="SECONDS",
        help="how long one library may take to answer (%(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")
    add_control_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at everything, and say it."""
    diagnosis = diagnose(args)
    if args.json:
        print_json(diagnosis)
    else:
        console = make_console()
        show(console, doctor_view(console, diagnosis))
    return 1 if diagnosis.verdict == "problem" else 0


def diagnose(args: argparse.Namespace) -> Diagnosis:
    """Put the diagnosis together; libraries are asked while everything else is looked at."""
    now = dt.datetime.now(dt.UTC)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        probing = pool.submit(probe_engines, args.probe_timeout, rungs_child=RUNGS_CHILD)
        reading = pool.submit(_gpu_figures, args.probe_timeout)
        config, configuration = find_configuration(args.config, args.root)
        told = args.control != DEFAULT_ENDPOINT
        endpoint = args.control if told else config.control_endpoint
        daemon, health = daemon_finding(ControlClient(endpoint, args.timeout))
        machine, places = machine_findings(read_machine()), place_findings(config)
        engines, figures = probing.result(), reading.result()
    gpus, hardware, rungs = _newest(health, figures), nvidia_hardware(), rungs_of(engines.rungs)
    sections = [
        Section("Machine", machine),
        Section("GPU", gpu_findings(hardware, engines, gpus, now)),
        Section("Runtimes", [_python(), *runtime_findings(hardware, engines)]),
        Section("Rungs", rung_findings(rungs)),
        Section("superbrain", [configuration, *places, daemon]),
    ]
    return Diagnosis(
        at=now,
        version=superbrain.__version__,
        hostname=os.uname().nodename,
        user=this_user(),
        verdict=worst(sections),
        sections=sections,
        rungs=rungs,
        gpus=[] if isinstance(gpus, Unanswered) else gpus,
    )


def _gpu_figures(timeout_s: float) -> GpuFigures | Unanswered:
    return ask_child("", GpuFigures, module=_GPU_CHILD, timeout_s=timeout_s)


def _newest(health: Health | None, figures: GpuFigures | Unanswered) -> list[GpuFacts] | Unanswered:
    """The daemon knows more of a GPU than who asks now: what happened since it runs."""
    if health is not None and health.gpus:
        return health.gpus
    return figures if isinstance(figures, Unanswered) else figures.gpus


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return ok("python", "Python", f"{version} in {sys.prefix}, superbrain {superbrain.__version__}")
