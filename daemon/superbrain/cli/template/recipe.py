"""The bundle.toml of a template.

What `recipe_text` writes of the graphs, with the bounds, the interface and the tolerances of the
template in the place of those that the graphs' own tensors suggest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from superbrain.app.config_keys import toml_value
from superbrain.cli.recipe_text import likely_ranges, recipe_text

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping, Sequence

    from superbrain.cli.template.fitting import Fitted, GraphFile
    from superbrain.domain.manifest import InterfaceTensor, Range

_AFTER_GRAPH = "# What a caller sends and gets;"
_INTERFACE, _TOLERANCES = "\n[interface]\n", "\n[golden.tolerances]\n"


def template_recipe(
    name: str, created: dt.datetime, graphs: Sequence[GraphFile], fitted: Fitted
) -> str:
    """Write the bundle.toml of these graphs with what a template adds."""
    first, *others = (_graph_recipe(name, created, graph, fitted) for graph in graphs)
    head, after, tail = first.partition(_AFTER_GRAPH)
    more = "".join(_graph_part(text) + "\n" for text in others)
    text = f"{head}{more}{after}{tail}".replace(
        'description = ""\n', f"description = {toml_value(fitted.description)}\n", 1
    )
    text = _with_body(text, _INTERFACE, _interface(fitted))
    return _with_body(text, _TOLERANCES, _table(fitted.tolerances))


def _graph_recipe(name: str, created: dt.datetime, graph: GraphFile, fitted: Fitted) -> str:
    text = recipe_text(
        name=name,
        created=created,
        graph=graph.name,
        path=graph.path,
        inputs=graph.inputs,
        outputs=graph.outputs,
    )
    guessed = likely_ranges(graph.inputs, graph.outputs)
    fits = fitted.ranges[graph.name]
    ranges: Mapping[str, Range] = {size: fits.get(size, one) for size, one in guessed.items()}
    return _with_body(text, ".dynamic]\n", _table(ranges)) if ranges else text


def _graph_part(text: str) -> str:
    """The tables of the graph alone, out of a whole recipe."""
    return text[text.index("\n[graphs.") + 1 : text.index("\n" + _AFTER_GRAPH)]


def _with_body(text: str, header: str, body: str) -> str:
    """Replace what stands below a table's header, up to the next empty line."""
    before, found, rest = text.partition(header)
    _, end, after = rest.partition("\n\n")
    return f"{before}{found}{body}{end}{after}"


def _table(values: Mapping[str, msgspec.Struct]) -> str:
    return "\n".join(f"{_key(name)} = {_inline(value)}" for name, value in values.items())


def _inline(value: msgspec.Struct) -> str:
    fields = msgspec.to_builtins(value)
    return f"{{ {', '.join(f'{key} = {_value(one)}' for key, one in fields.items())} }}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    return toml_value(value)


def _interface(fitted: Fitted) -> str:
    aside = "".join(f"    # {line}\n" for line in fitted.aside)
    return (
        f"inputs = [\n{_tensors(fitted.inputs)}{aside}]\noutputs = [\n{_tensors(fitted.outputs)}]"
    )


def _tensors(tensors: Iterable[InterfaceTensor]) -> str:
    return "".join(f"    {_inline(tensor)},\n" for tensor in tensors)
