"""How trust looks on a terminal: keys, what is revoked, floors, updates, and what is wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.text import Text

from superbrain.cli.display import arrow, heading, plain_table
from superbrain.domain.host_time import HostTime
from superbrain.domain.trust_facts import KeyFacts, RevocationFacts, TrustFacts, UpdateFacts
from superbrain.domain.trust_update import TrustUpdate

SHORT = 16  # digits of an id that tell it from all others


def trust_view(console: Console, facts: TrustFacts) -> Iterator[RenderableType]:
    """Show everything about one host."""
    if facts.fault:
        yield Text(facts.fault, style="bold red")
        if facts.mend:
            yield Text(f"{arrow(console)} {facts.mend}\n")
    yield Text(_summary(facts))
    yield heading("keys")
    yield _keys(console, facts.keys)
    if facts.revoked:
        yield heading("revoked")
        yield _revoked(console, facts.revoked)
    yield from _floors(console, facts.security_floors)
    if facts.updates:
        yield heading("updates")
        yield _updates(console, facts.updates)
    time = HostTime(facts.clock, facts.time_floor)
    if time.behind:
        yield Text(f"\nthe clock is behind: dates are judged by {_day(time.now)}", style="yellow")


def update_view(
    console: Console, update: TrustUpdate, claimed: Sequence[str]
) -> Iterator[RenderableType]:
    """Show what an update file says; nothing of it is verified."""
    yield Text(f"trust update {update.sequence}, made {_day(update.created)}")
    yield Text(f"{update.threshold} of {len(update.keys)} keys must sign what hosts shall take")
    if update.expires:
        yield Text(f"to be imported before {_day(update.expires)}, or with a newer one")
    if update.note:
        yield Text(update.note)
    yield heading("keys")
    keys = [
        KeyFacts(key.id, key.who, "", "valid", key.not_before, key.not_after) for key in update.keys
    ]
    yield _keys(console, keys, claimed)
    revoked = [RevocationFacts(item, "key") for item in update.revoked_keys]
    revoked += [
        RevocationFacts(item.digest, item.why or "bundle", item.stop)
        for item in update.revoked_bundles
    ]
    if revoked:
        yield heading("revoked")
        yield _revoked(console, revoked)
    yield from _floors(console, update.security_floors)
    yield heading("signatures, not verified")
    yield Text("\n".join(claimed))


def _summary(facts: TrustFacts) -> str:
    counts = f"update {facts.sequence}" if facts.sequence else "the trust folder"
    return (
        f"{counts} counts: {facts.threshold} of {len(facts.keys)} keys must sign\n"
        f"trust folder {facts.folder}"
    )


def _keys(
    console: Console, keys: Sequence[KeyFacts], claimed: Sequence[str] | None = None
) -> RenderableType:
    table = plain_table(console)
    for column in ("key id", "whose", "state", "valid from", "until"):
        table.add_column(column, no_wrap=True)
    table.add_column("from" if claimed is None else "signed")
    for key in keys:
        origin = key.source if claimed is None else "yes" if key.key_id in claimed else "no"
        table.add_row(
            key.key_id[:SHORT],
            key.who,
            Text(key.state, style="" if key.state == "valid" else "yellow"),
            _day(key.not_before),
            _day(key.not_after),
            origin,
        )
    return table


def _revoked(console: Console, revoked: Sequence[RevocationFacts]) -> RenderableType:
    table = plain_table(console)
    for column in ("digest or key id", "bundle", "by", ""):
        table.add_column(column, no_wrap=True)
    for item in revoked:
        table.add_row(item.digest, item.bundle, item.by, "stop" if item.stop else "")
    return table


def _floors(console: Console, floors: dict[str, int]) -> Iterator[RenderableType]:
    if not floors:
        return
    yield heading("security floors")
    table = plain_table(console)
    table.add_column("model", no_wrap=True)
    table.add_column("lowest sequence", justify="right")
    for name, sequence in floors.items():
        table.add_row(name, str(sequence))
    yield table


def _updates(console: Console, updates: Sequence[UpdateFacts]) -> RenderableType:
    table = plain_table(console)
    table.add_column("number", justify="right")
    for column in ("made", "must sign", "signed by", "note"):
        table.add_column(column)
    for update in updates:
        signers = ", ".join(key_id[:SHORT] for key_id in update.signers)
        of = f"{update.threshold} of {update.keys}"
        table.add_row(str(update.sequence), _day(update.created), of, signers, update.note)
    return table


def _day(at: dt.datetime | None) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%d}" if at is not None else ""
