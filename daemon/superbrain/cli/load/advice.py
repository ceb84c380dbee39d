"""What limits a model on this host, and what to change: rules over the figures of a load test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from superbrain.cli.load.figures import Step
from superbrain.cli.load.search import Slo

_BUSY = 0.9  # of what there is
_FLAT = 1.1  # more callers than needed bring less than this many times the throughput
_ASKING_COSTS = 0.3  # of what is busy: worth saying
_ERRORS = {
    "RESOURCE_EXHAUSTED": "a queue was full: raise serving.queue_size, add instances, or ask less",
    "DEADLINE_EXCEEDED": "requests waited longer than their timeout: ask less, or allow more time",
    "UNAVAILABLE": "nobody could answer for a while: superbrain status says why",
    "INTERNAL": "the model failed on a request: superbrain status shows its last error",
    "INVALID_ARGUMENT": "requests do not fit the model: try one with superbrain infer",
    "NOT_FOUND": "there is no such model or version: superbrain models lists them",
}


def advise(
    steps: Sequence[Step], cores: int, *, slo: Slo | None = None, best_rate: float | None = None
) -> list[str]:
    """Say what the steps show, the most important first.

    Args:
        steps: of the test.
        cores: of this host.
        slo: the limit that was to be kept.
        best_rate: the highest rate that kept it, if one was looked for.
    """
    measured = [step for step in steps if step.requests]
    sentences = list(_failures(steps))
    if slo is not None and best_rate is not None:
        sentences.append(_outcome(slo, best_rate))
    elif slo is not None:
        sentences += _verdicts(slo, steps)
    if measured:
        busiest = max(measured, key=lambda step: step.throughput)
        sentences += _limits(busiest, cores)
        sentences += _queueing(measured)
    return sentences


def _failures(steps: Sequence[Step]) -> Iterator[str]:
    codes: dict[str, int] = {}
    for step in steps:
        for code, count in step.errors.items():
            codes[code] = codes.get(code, 0) + count
    for code, count in codes.items():
        what = _ERRORS.get(code, "see the daemon's log")
        yield f"{count:,} requests failed with {code}: {what}"
    unsent = sum(step.unsent for step in steps)
    if unsent:
        yield f"{unsent:,} requests were never sent, no caller was free: the rate is out of reach"


def _outcome(slo: Slo, best_rate: float) -> str:
    if not best_rate:
        return f"{slo} was kept at no rate that was tried"
    return f"{slo} is kept up to {best_rate:,.0f} requests/s"


def _verdicts(slo: Slo, steps: Sequence[Step]) -> Iterator[str]:
    """Say of every rate that was asked for whether it kept the limit."""
    for step in steps:
        if not step.plan.rate:
            continue
        rate = f"{step.plan.rate:,.10g} requests/s"
        if slo.met(step):
            yield f"{slo} is kept at {rate}"
        elif step.failed or not step.requests:
            yield f"{slo} is not kept at {rate}: {step.failed:,} requests had no answer"
        else:
            found = step.latency_ms.quantile(slo.quantile)
            yield f"{slo} is not kept at {rate}: {slo.quantile} was {found:.3g} ms"


def _limits(step: Step, cores: int) -> Iterator[str]:
    """Say who had nothing left to give at the highest throughput."""
    workers = [one for one in step.usage if one.name.startswith("worker")]
    worker_cores = step.cores("worker")
    if step.host_cores_busy >= _BUSY * cores:
        yield _host_is_the_limit(step, cores)
    elif workers and worker_cores >= _BUSY * len(workers):
        yield (
            f"the model is the limit: its {_processes(len(workers))} used {worker_cores:.1f} cores "
            f"and {cores - step.host_cores_busy:.1f} were idle: raise serving.instances or "
            "the graph's threads, or let requests share runs (serving.batching)"
        )
    if step.cores("gateway") >= _BUSY:
        yield "the gateway used a whole core: let programs of this host ask by lanes"
    if step.gpu_percent is not None and step.gpu_percent >= _BUSY * 100:
        yield f"the GPU is the limit: it was busy {step.gpu_percent:.0f} % of the time"


def _host_is_the_limit(step: Step, cores: int) -> str:
    share = step.generator_cores / step.host_cores_busy
    busy = f"the host's processors are the limit: {step.host_cores_busy:.1f} of {cores} cores busy"
    if share > _ASKING_COSTS:
        return (
            f"{busy}, {share:.0%} of that with asking: callers on another host, or fewer larger "
            "requests, would leave more for the model"
        )
    return (
        f"{busy}, {step.cores('worker'):.1f} of them with the model: a smaller or quantised model, "
        "or a GPU, is the way to more"
    )


def _processes(count: int) -> str:
    return "worker" if count == 1 else f"{count} workers"


def _callers(count: int) -> str:
    return "1 caller gets" if count == 1 else f"{count} callers get"


def _queueing(steps: Sequence[Step]) -> Iterator[str]:
    """Say from how many callers on requests only wait longer."""
    closed = sorted(
        (step for step in steps if not step.plan.rate), key=lambda step: step.plan.callers
    )
    if len(closed) < 2:
        return
    most = max(step.throughput for step in closed)
    enough = next(step for step in closed if step.throughput * _FLAT >= most)
    last = closed[-1]
    if enough.plan.callers < last.plan.callers:
        yield (
            f"{_callers(enough.plan.callers)} {enough.throughput / most:.0%} of the highest "
            f"throughput with a p99 of {enough.latency_ms.p99:.3g} ms; {last.plan.callers} wait "
            f"for each other ({last.latency_ms.p99:.3g} ms)"
        )
