"""The health report as a person reads it: host, models, what is under way, problems, inbox.

`status_view(console, health)` is all of it; `superbrain status` prints it once or keeps it on the
screen. Wide terminals get one line for a model, narrow ones two; what needs attention is last,
where the eye is when the command ends.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from superbrain.cli.display import (
    ago,
    arrow,
    count_text,
    fits,
    has_symbols,
    heading,
    milliseconds_text,
    plain_table,
    state_text,
)
from superbrain.domain.deployment import UNFINISHED
from superbrain.domain.health import (
    GpuFacts,
    Health,
    HostFacts,
    InboxFile,
    ModelFacts,
    Problem,
    TcpFacts,
)
from superbrain.domain.quantities import bytes_text
from superbrain.domain.rung_facts import RungFacts


def status_view(console: Console, health: Health) -> RenderableType:
    """Everything an operator wants to see at a glance."""
    return Group(*_parts(console, health))


def _parts(console: Console, health: Health) -> Iterator[RenderableType]:
    yield _headline(console, health)
    yield from _host_lines(health)
    yield Text()
    yield _models(console, health) if health.models else _nothing_yet(health)
    yield from _loosely_held(health)
    yield from _ladders(health)
    under_way = [model for model in health.models if _is_under_way(model)]
    if under_way:
        yield heading("Under way")
        yield _deployments(console, health, under_way)
    if health.problems:
        yield heading("Needs attention")
        yield _problems(console, health.problems)
    # Refused files are among the problems already, with what to do.
    arriving = [file for file in health.inbox if file.outcome != "refused"]
    if arriving:
        yield heading("Inbox")
        yield _inbox(console, arriving)
        yield from _more_arriving(health)


# --- the host -----------------------------------------------------------------------------------


def _headline(console: Console, health: Health) -> Text:
    line = Text(f"superbrain {health.version}", style="bold")
    line.append(f" on {health.host.hostname}  ", style="not bold")
    line.append_text(state_text(console, health.status))
    ready = "ready" if health.ready else "not ready"
    line.append(f"  {ready}, up {ago(health.at, health.started_at)}", style="not bold dim")
    if not health.gateway.running:
        line.append("  gateway down", style="bold red")
    return line


def _host_lines(health: Health) -> Iterator[Text]:
    yield Text(_host_line(health.host), style="dim")
    if health.tcp is not None:
        yield Text(_tcp_line(health.tcp), style="dim" if health.tcp.running else "bold red")
    for gpu in health.gpus:
        yield Text(_gpu_line(gpu), style="bold red" if gpu.lost else "dim")


def _host_line(host: HostFacts) -> str:
    parts = [f"{host.cpu_count} CPUs"]
    if host.cpu_percent is not None:
        parts[0] += f" {host.cpu_percent:.0f} % busy"
    memory = bytes_text(host.memory_available_bytes)
    parts.append(f"memory {memory} of {bytes_text(host.memory_total_bytes)} free")
    disk = bytes_text(host.disk_free_bytes)
    parts.append(f"disk {disk} of {bytes_text(host.disk_total_bytes)} free")
    return ", ".join(parts)


def _tcp_line(tcp: TcpFacts) -> str:
    where = ", ".join(tcp.endpoints)
    if not tcp.running:
        return f"{where} closed"
    return f"{where} {tcp.clients} clients of {tcp.allowed} allowed, {tcp.refused} refused"


def _gpu_line(gpu: GpuFacts) -> str:
    parts = [f"GPU {gpu.index} {gpu.name}"]
    if gpu.lost:
        parts.append(f"lost: {gpu.lost}")
    if gpu.utilization_percent is not None:
        parts.append(f"{gpu.utilization_percent:.0f} % busy")
    if gpu.memory_used_bytes is not None and gpu.memory_total_bytes is not None:
        used, total = bytes_text(gpu.memory_used_bytes), bytes_text(gpu.memory_total_bytes)
        parts.append(f"memory {used} of {total} used")
    if gpu.temperature_celsius is not None:
        parts.append(f"{gpu.temperature_celsius:.0f} °C")
    if gpu.power_watts is not None:
        parts.append(f"{gpu.power_watts:.0f} W")
    if gpu.throttled_by:
        parts.append(f"held down by {', '.join(gpu.throttled_by)}")
    return ", ".join(parts)


# --- models -------------------------------------------------------------------------------------


def _nothing_yet(health: Health) -> Text:
    place = health.inbox_path or "the inbox"
    return Text(f"No model is installed. Put a signed bundle (.sbb) into {place}.")


def _models(console: Console, health: Health) -> Table:
    """One line for each model where there is room for it, otherwise two."""
    for gap in (2, 1):
        table = _model_table(console, health, gap=gap, wide=True)
        if fits(console, table):
            return table
    return _model_table(console, health, gap=1, wide=False)


def _loosely_held(health: Health) -> Iterator[Text]:
    """Say whose code this kernel cannot hold as tightly as it should be."""
    for model in health.models:
        sandbox = model.sandbox
        if sandbox is not None and sandbox.level != "full":
            found = f"sandbox of {model.name}: {sandbox.level}, {'; '.join(sandbox.missing)}"
            yield Text(found, style="yellow")


def _ladders(health: Health) -> Iterator[Text]:
    """Say which other rungs were tried for what serves, and what speaks against them."""
    for model in health.models:
        tried = [one for one in model.ladder if one.verdict not in {"chosen", "not tried"}]
        if tried:
            others = ", ".join(f"{one.rung} {_against(one)}" for one in tried)
            mine = next((one for one in model.ladder if one.verdict == "chosen"), None)
            time = f" {_time(mine)}" if mine and mine.milliseconds is not None else ""
            yield Text(f"{model.name} serves on {model.rung}{time}; {others}", style="dim")


def _against(rung: RungFacts) -> str:
    return _time(rung) if rung.milliseconds is not None else rung.verdict


def _time(rung: RungFacts) -> str:
    return f"{milliseconds_text(rung.milliseconds or 0.0)} ms"


def _model_table(console: Console, health: Health, *, gap: int, wide: bool) -> Table:
    table = plain_table(console, gap=gap)
    table.add_column("model", overflow="ellipsis", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("version", overflow="ellipsis", no_wrap=True)
    if wide:
        table.add_column("rung", no_wrap=True)
        table.add_column("proof", no_wrap=True)
    for name in ("requests", "p50/p99 ms", "waiting", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    for model in health.models:
        table.add_row(*(_wide_row if wide else _narrow_row)(console, health, model))
    return table


def _wide_row(console: Console, health: Health, model: ModelFacts) -> list[Text]:
    proof = _proof(model)
    if model.proof is not None:
        age = " ".join(ago(health.at, model.proof.at).split()[:2])  # its largest unit
        proof.append(f", {age} ago", style="dim not green")
    return [
        Text(model.name, style="bold"),
        state_text(console, model.state),
        Text(model.version or "-"),
        Text(model.rung or "-"),
        proof,
        _requests(model, " "),
        *_traffic(model),
    ]


def _narrow_row(console: Console, _health: Health, model: ModelFacts) -> list[Text]:
    """Two lines: rung and proof below name and state."""
    name = Text(model.name, style="bold").append(f"\n{model.rung}", style="not bold dim")
    state = state_text(console, model.state).append("\n").append_text(_proof(model))
    return [name, state, Text(model.version or "-"), _requests(model, "\n"), *_traffic(model)]


def _proof(model: ModelFacts) -> Text:
    """How many golden cases the serving processes have reproduced."""
    if model.proof is None:
        return Text("no proof", style="not bold dim")
    cases = model.proof.cases
    return Text(f"{cases} case{'' if cases == 1 else 's'} ok", style="not bold green")


def _requests(model: ModelFacts, separator: str) -> Text:
    text = Text(count_text(model.requests))
    if model.errors:
        text.append(f"{separator}({count_text(model.errors)} bad)", style="yellow")
    return text


def _traffic(model: ModelFacts) -> list[Text]:
    quantiles = model.latency_ms
    latency = f"{milliseconds_text(quantiles.p50)}/{milliseconds_text(quantiles.p99)}"
    return [
        Text(latency if quantiles.max or quantiles.p50 else "-"),
        Text(str(model.waiting)),
        Text(str(model.restarts), style="yellow" if model.restarts else ""),
    ]


# --- what is under way --------------------------------------------------------------------------


def _is_under_way(model: ModelFacts) -> bool:
    return model.candidate is not None and model.candidate.state in UNFINISHED


def _deployments(console: Console, health: Health, models: list[ModelFacts]) -> Table:
    table = plain_table(console)
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for model in models:
        candidate = model.candidate
        if candidate is None:
            continue
        state = Text(candidate.state.lower().replace("_", " "), style="cyan")
        if candidate.rung:
            state.append(f" {candidate.rung}", style="not cyan")
        detail = ", ".join(
            part
            for part in (candidate.detail, f"since {ago(health.at, candidate.since)}")
            if part and part != "since "
        )
        table.add_row(
            Text.assemble((model.name, "bold"), f" {candidate.version}"),
            state,
            _percent(console, candidate.percent),
            Text(detail, style="dim"),
        )
    return table


def _percent(console: Console, percent: float | None) -> RenderableType:
    if percent is None:
        return Text()
    if not has_symbols(console):
        return Text(f"{percent:.0f} %")
    grid = Table.grid(padding=(0, 1, 0, 0))
    bar = ProgressBar(total=100, completed=percent, width=16)
    grid.add_row(bar, Text(f"{percent:.0f} %"))
    return grid


# --- what needs attention -----------------------------------------------------------------------


def _problems(console: Console, problems: list[Problem]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for problem in problems:
        sentence = Text.assemble((problem.subject, "bold"), f": {problem.message}")
        if problem.mend:
            sentence.append(f"\n{arrow(console)} {problem.mend}", style="cyan")
        table.add_row(state_text(console, problem.severity), sentence)
    return table


def _more_arriving(health: Health) -> Iterator[Text]:
    """Say how many files are not listed; more refused ones are among the problems."""
    more = [f"{count} {key}" for key, count in health.inbox_more.items() if key != "refused"]
    if more:
        place = health.inbox_path or "the inbox"
        yield Text(f"and more files, not listed: {', '.join(more)}; see {place}", style="dim")


def _inbox(console: Console, files: list[InboxFile]) -> Table:
    table = plain_table(console)
    table.show_header = False
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True)
    table.add_column()
    for file in files:
        message = Text(file.message, style="dim")
        if file.need_bytes:
            have, need = bytes_text(file.have_bytes), bytes_text(file.need_bytes)
            message.append(f" ({have} of {need})")
        if file.mend:
            message.append(f"\n{arrow(console)} {file.mend}", style="cyan not dim")
        table.add_row(Text(file.name, style="bold"), file.outcome, message)
    return table
