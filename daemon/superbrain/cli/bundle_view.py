"""A bundle's own words as tables: what it is, what it takes and gives, what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from superbrain.cli.author_engines import engine_facts, engine_table
from superbrain.cli.display import heading, plain_table
from superbrain.domain.golden import spell_tolerance
from superbrain.domain.manifest import Manifest
from superbrain.domain.tensor_fit import Declared, spell


class BundleFacts(msgspec.Struct, frozen=True):
    """What a bundle file says about itself.

    `verified` tells whether trusted keys signed the manifest; if not, `signers` are mere claims.
    """

    file: str
    digest: str
    verified: bool
    signers: tuple[str, ...]
    size_bytes: int
    manifest: Manifest


def bundle_view(
    console: Console, facts: BundleFacts, expected_bytes: int
) -> Iterator[RenderableType]:
    """Give the parts of the view, top to bottom."""
    manifest = facts.manifest
    yield Text(f"{manifest.name} {manifest.version}", style="bold")
    if not facts.verified:
        yield Text("not verified: nobody vouches for what follows", style="yellow")
    if manifest.description:
        yield Text(manifest.description)
    yield _rows(console, _facts(facts, expected_bytes))
    yield heading("Interface")
    yield _interface(console, manifest)
    yield heading("Graphs")
    yield _graphs(console, manifest)
    if manifest.engines:
        yield heading("Engines")
        yield engine_table(console, engine_facts(manifest))
    yield heading("Files")
    yield _files(console, manifest)


def _facts(facts: BundleFacts, expected_bytes: int) -> Iterator[tuple[str, str]]:
    manifest = facts.manifest
    yield "sequence", str(manifest.sequence)
    yield "created", manifest.created.isoformat()
    if manifest.expires is not None:
        yield "expires", manifest.expires.isoformat()
    yield "digest", facts.digest
    for signer in facts.signers:
        yield "signer" if facts.verified else "claims signer", signer
    chosen = " (the fastest that proves)" if manifest.select == "fastest" else ""
    yield "ladder", ", ".join(manifest.ladder) + chosen
    for name, graph in manifest.graphs.items():
        if graph.precisions:
            yield f"precisions of {name}", ", ".join(graph.precisions)
    if manifest.targets.memory_mb:
        yield "needs memory", f"{manifest.targets.memory_mb} MB"
    if manifest.targets.onnxruntime:
        yield "needs onnxruntime", manifest.targets.onnxruntime
    yield "golden cases", ", ".join(case.name for case in manifest.golden.cases)
    size = f"{facts.size_bytes:,} bytes"
    if facts.size_bytes != expected_bytes:
        size += f", expected {expected_bytes:,}: this file is not whole"
    yield "size", size


def _rows(console: Console, rows: Iterable[tuple[str, str]]) -> Table:
    table = plain_table(console)
    table.show_header = False
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _interface(console: Console, manifest: Manifest) -> Table:
    table = _table(console, "", "tensor", "type and shape", "tolerance", "description")
    for tensor in manifest.interface.inputs:
        table.add_row("in", Text(tensor.name), _type(tensor), "", Text(tensor.description))
    for tensor in manifest.interface.outputs:
        tolerance = _tolerance(manifest, tensor.name)
        table.add_row("out", Text(tensor.name), _type(tensor), tolerance, Text(tensor.description))
    return table


def _tolerance(manifest: Manifest, output: str) -> str:
    """The tolerance of an output, and below it those of rungs of a precision."""
    others = manifest.golden.precision_tolerances.items()
    return "\n".join(
        [
            spell_tolerance(manifest.golden.tolerances[output]),
            *(f"{name}: {spell_tolerance(one[output])}" for name, one in others if output in one),
        ]
    )


def _graphs(console: Console, manifest: Manifest) -> Table:
    table = _table(console, "graph", "", "tensor", "type and shape")
    for name, graph in manifest.graphs.items():
        for tensor in graph.inputs:
            table.add_row(name, "in", Text(tensor.name), _type(tensor))
        for tensor in graph.outputs:
            table.add_row(name, "out", Text(tensor.name), _type(tensor))
    return table


def _files(console: Console, manifest: Manifest) -> Table:
    table = _table(console, "path", "bytes", "sha256")
    table.columns[1].justify = "right"
    for entry in manifest.files:
        table.add_row(Text(entry.path), f"{entry.size_bytes:,}", entry.sha256[:16])
    return table


def _table(console: Console, *columns: str) -> Table:
    table = plain_table(console)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _type(tensor: Declared) -> Text:
    return Text(spell(tensor.datatype, tensor.shape))
