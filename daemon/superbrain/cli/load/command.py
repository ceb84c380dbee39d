"""`superbrain load MODEL`: the options, the order of the steps, and how it ends."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from superbrain.bundle.disk import not_written
from superbrain.cli.control import DEFAULT_ENDPOINT as CONTROL_ENDPOINT
from superbrain.cli.control import ControlClient
from superbrain.cli.infer import parse_typed_input, print_as_json
from superbrain.cli.load import payload
from superbrain.cli.load.advice import advise
from superbrain.cli.load.figures import Plan, Step, summarize
from superbrain.cli.load.generator import Generators, Target
from superbrain.cli.load.html import report_html
from superbrain.cli.load.search import Slo, find_rate, parse_slo
from superbrain.cli.load.text import LoadReport, report_text
from superbrain.cli.load.watch import Watch
from superbrain.cli.numbers import fitting, seconds, whole
from superbrain.client import Client
from superbrain.client.endpoint import DEFAULT_ENDPOINT, ENDPOINT_VARIABLE, choose_endpoint
from superbrain.wire.errors import InvalidArgument

EXIT_INTERRUPTED = 130
# Tensors of this size gain from shared memory.
_LARGE_BYTES = 100_000
_CONTROL_TIMEOUT_S = 2.0
_PIPED_WIDTH = 200
_LOOK_EVERY_S = 0.2
_EXAMPLES = """\
A closed loop (--concurrency) shows what the host can do: each caller asks again as soon as it has
its answer. An open loop (--rate) shows what users feel: requests fall due at random moments, and a
latency counts from the moment a request was due, also when it had to wait to be sent.

exit codes: 0 done; 1 requests failed, or --slo was not kept; 2 the command line is wrong

examples:
  superbrain load orientation --input image=page.jpg
  superbrain load ocr --golden ocr-3.1.0.sbb --concurrency 1,8,32 --duration 10
  superbrain load embedding --rate 200 --slo p99=20ms        does it keep 200/s below 20 ms?
  superbrain load embedding --slo p99=20ms                   how many a second keep below 20 ms?
  superbrain load camera --shape image=1080,1920,3 --html report.html
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `load`."""
    parser = commands.add_parser(
        "load",
        help="how much a model takes, how long answers take, and what limits it",
        description="Put load on a model of this host and say how it holds.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="name of the model")
    _add_payload(parser)
    _add_load(parser)
    _add_road(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with plot and table"
    )
    parser.set_defaults(run=run)


def _add_payload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is sent (default: made-up numbers)")
    group.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        dest="inputs",
        type=parse_typed_input,
        metavar="NAME=VALUE",
        help="one input, as for superbrain infer; may be repeated",
    )
    group.add_argument(
        "--golden", type=Path, metavar="PATH", help="the golden cases of a bundle file or folder"
    )
    group.add_argument(
        "--shape",
        action="append",
        default=[],
        type=_shape,
        metavar="NAME=SIZES",
        help="shape of a made-up input whose sizes are open, such as image=1,3,224,224",
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how much")
    group.add_argument(
        "--concurrency", type=_counts, metavar="N,N,…", help="callers of a closed loop (1,2,4,8)"
    )
    group.add_argument(
        "--rate", type=_rates, metavar="R,R,…", help="requests a second of an open loop"
    )
    group.add_argument(
        "--slo",
        type=_slo,
        metavar="p99=20ms",
        help="a limit on latency: is it kept at --rate; without --rate: up to which rate",
    )
    group.add_argument(
        "--duration", type=_seconds, default=5.0, metavar="SECONDS", help="of a step (%(default)g)"
    )
    group.add_argument(
        "--warmup", type=_seconds, default=1.0, metavar="SECONDS", help="before it (%(default)g)"
    )


def _add_road(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("by which road")
    group.add_argument(
        "--lanes",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask workers directly, as programs of this host do",
    )
    group.add_argument(
        "--shared-memory",
        choices=("auto", "on", "off"),
        default="auto",
        help="tensors in shared memory (auto: from 100 KB on)",
    )
    group.add_argument(
        "--processes", type=_count, default=1, metavar="N", help="that ask (%(default)d)"
    )
    group.add_argument(
        "--endpoint", help=f"where the gateway listens (${ENDPOINT_VARIABLE}, {DEFAULT_ENDPOINT})"
    )
    group.add_argument(
        "--control",
        metavar="ENDPOINT",
        default=os.environ.get("SUPERBRAIN_CONTROL") or CONTROL_ENDPOINT,
        help="the daemon's control socket, for the figures of its processes (%(default)s)",
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="of a request (%(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Carry out the steps; print what they showed."""
    if args.html:
        _check_page(args.html)
    target, cases = _target(args)
    watch = Watch(ControlClient(args.control, _CONTROL_TIMEOUT_S), args.model)
    steps: list[Step] = []
    best_rate: float | None = None
    interrupted = False
    with Generators(target, args.processes) as generators:
        test = _Test(generators, watch, args, steps)
        try:
            best_rate = test.carry_out()
        except KeyboardInterrupt:
            test.cut_short()
            interrupted = True
        test.progress("")
    cores = os.cpu_count() or 1
    report = LoadReport(
        model=args.model,
        versions=sorted({version for step in steps for version in step.versions}),
        machine=f"{cores} cores, {platform.machine()}, Python {platform.python_version()}",
        road=_road(target),
        request_bytes=payload.size_bytes(target.requests),
        cases=cases,
        steps=steps,
        advice=advise(steps, cores, slo=args.slo, best_rate=best_rate),
        slo=str(args.slo or ""),
        best_rate=best_rate,
        unwatched=watch.why_not,
        interrupted=interrupted,
    )
    return _end(args, report)


def _end(args: argparse.Namespace, report: LoadReport) -> int:
    if args.json:
        print_as_json(report)
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPED_WIDTH
        print(report_text(report, width=width))
    if args.html:
        _write_page(args.html, report_html(report))
        print(f"written {args.html}", file=sys.stderr)
    if report.interrupted:
        return EXIT_INTERRUPTED
    searched = report.best_rate is not None
    failed = not searched and any(step.failed for step in report.steps)
    at_rate = [step for step in report.steps if step.plan.rate] if args.rate else []
    missed = report.best_rate == 0 or (args.slo and not all(map(args.slo.met, at_rate)))
    return int(failed or bool(missed))


def _check_page(path: Path) -> None:
    """Refuse before the load what could not be written after it."""
    place = path if path.exists() else path.parent
    if path.is_dir() or not os.access(place, os.W_OK):
        found = "a folder" if path.is_dir() else f"that {place} is not there, or not to be written"
        raise InvalidArgument(
            f"expected to write a page to {path}, found {found}", mend="Name another file by --html"
        )


def _write_page(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        message, mend = not_written(path, error)
        raise InvalidArgument(message, mend=mend) from error


def _target(args: argparse.Namespace) -> tuple[Target, int]:
    """Whom to ask for what; and how many golden cases, 1 for any other request."""
    if args.inputs and args.golden:
        raise InvalidArgument("expected --input or --golden, found both")
    with Client(args.endpoint, args.timeout) as client:
        interface = client.metadata(args.model)
        if args.inputs:
            requests = payload.typed(args.inputs, interface)
        elif args.golden:
            requests = payload.golden(args.golden, interface)
        else:
            requests = payload.made_up(interface, dict(args.shape))
        client.infer(args.model, requests[0])  # says at once what is wrong with it
    endpoint = choose_endpoint(args.endpoint)
    local = endpoint.startswith("ipc://") and args.lanes
    shared = args.shared_memory == "on" or (
        args.shared_memory == "auto" and local and payload.size_bytes(requests) >= _LARGE_BYTES
    )
    if shared and len({_shapes(request) for request in requests}) > 1:
        if args.shared_memory == "on":
            raise InvalidArgument(
                "expected requests of one shape to keep them in shared memory, found several",
                mend="Leave --shared-memory out, or send one golden case with --input",
            )
        shared = False
    target = Target(endpoint, args.model, requests, args.lanes, shared, args.timeout)
    return target, len(requests)


def _shapes(request: payload.Request) -> tuple[object, ...]:
    return tuple(sorted((name, array.shape) for name, array in request.items()))


def _road(target: Target) -> str:
    if not target.endpoint.startswith("ipc://"):
        return f"through the gateway at {target.endpoint}"
    if target.shared_memory:
        return "by lanes, in shared memory"
    return "by lanes" if target.lanes else "through the gateway"


class _Test:
    """The steps of one load test."""

    def __init__(
        self, generators: Generators, watch: Watch, args: argparse.Namespace, steps: list[Step]
    ) -> None:
        self._generators = generators
        self._watch = watch
        self._args = args
        self._steps = steps
        self._plan: Plan | None = None
        self._begun = 0.0

    def carry_out(self) -> float | None:
        """Carry out every step; give the best rate if one was looked for."""
        args = self._args
        slo: Slo | None = args.slo
        closed = args.concurrency or ([] if args.rate else [1, 2, 4, 8])
        for number, callers in enumerate(closed, 1):
            self.step(Plan(callers, 0, args.warmup, args.duration), f"{number} of {len(closed)}")
        rates = args.rate or []
        for number, rate in enumerate(rates, 1):
            self.step(Plan(0, rate, args.warmup, args.duration), f"{number} of {len(rates)}")
        if slo is None or args.rate:
            return None
        ceiling = max((step.throughput for step in self._steps), default=0.0)
        return find_rate(self._at_rate, ceiling, slo)[0] if ceiling else 0.0

    def _at_rate(self, rate: float) -> Step:
        args = self._args
        return self.step(Plan(0, rate, args.warmup, args.duration), f"looking for {args.slo}")

    def step(self, plan: Plan, which: str) -> Step:
        """Carry out one step."""
        self._plan = plan
        self._generators.start(plan)
        what = f"{plan.rate:,.0f} requests/s" if plan.rate else f"{plan.callers} callers"
        self._wait(plan.warmup_s, lambda left_s: f"step {which}: {what}, warming up {left_s:.0f} s")
        self._begin()
        self._wait(plan.duration_s, lambda left_s: f"step {which}: {what}, {left_s:.0f} s left")
        return self._finish(plan)

    def cut_short(self) -> None:
        """End the step that is under way and keep what it has measured."""
        if self._plan is not None and self._begun:
            self._generators.stop()
            self._finish(self._plan)

    def _begin(self) -> None:
        self._begun = time.monotonic()
        self._watch.begin()

    def _finish(self, plan: Plan) -> Step:
        begun, self._begun = self._begun, 0.0  # an interrupt from here on finds nothing under way
        taken = self._generators.take()
        usage, busy, gpu = self._watch.end(max(1e-9, time.monotonic() - begun))
        step = summarize(plan, taken, usage=usage, host_cores_busy=busy, gpu_percent=gpu)
        self._steps.append(step)
        return step

    def _wait(self, seconds: float, told: Callable[[float], str]) -> None:
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            self.progress(told(left_s))
            time.sleep(min(_LOOK_EVERY_S, left_s))

    def progress(self, text: str) -> None:
        """Show where the test is, on a terminal; an empty text takes it away."""
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# --- words of the command line ------------------------------------------------------------------


_count = whole(1, 256)
_seconds = seconds(86_400, zero=True)


def _counts(text: str) -> Sequence[int]:
    return [_count(part) for part in text.split(",")]


def _rates(text: str) -> Sequence[float]:
    rate = fitting(float, lambda rate: 0 < rate <= 1e6, "rates above 0, up to 1000000")
    return [rate(part) for part in text.split(",")]


def _shape(text: str) -> tuple[str, list[int]]:
    name, equals, sizes = text.partition("=")
    try:
        shape = [int(size) for size in sizes.split(",")]
    except ValueError:
        shape = []
    if not equals or not shape or min(shape) < 0:
        raise argparse.ArgumentTypeError(f"expected NAME=SIZE,SIZE,…, got {text!r}")
    return name, shape


def _slo(text: str) -> Slo:
    try:
        return parse_slo(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
