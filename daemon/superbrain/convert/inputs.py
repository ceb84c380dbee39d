"""What goes into a model: as the author says it, as the model knows it, and both together.

>>> parse_input("x=float32[batch,3,224,224]")
GraphTensor(name='x', datatype='FP32', shape=['batch', 3, 224, 224])
>>> parse_dynamic("batch=1:4:16")
('batch', Range(min=1, opt=4, max=16))
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from superbrain.convert.errors import InputsUnclear
from superbrain.domain.graph_rules import SIZE_NAME
from superbrain.domain.manifest import GraphTensor, Range
from superbrain.domain.tensor_fit import spell
from superbrain.wire.datatypes import DATATYPES

_INPUT = re.compile(r"(?P<name>[^=]+)=(?P<dtype>\w+)\[(?P<sizes>[^\]]*)\]")
_NUMPY_NAMES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bool": "BOOL",
    "string": "BYTES",
    "str": "BYTES",
    **{
        f"{sign}int{bits}": f"{sign}INT{bits}".upper()
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
ASSUMED_BATCH = Range(min=1, opt=4, max=16)


class Inputs(NamedTuple):
    """Inputs with a name for every open size, the bounds of each name, and what was assumed."""

    tensors: list[GraphTensor]
    dynamic: dict[str, Range]
    notes: list[str]


def parse_input(text: str) -> GraphTensor:
    """Read NAME=DTYPE[SIZE,…]; a size is a number or a name.

    Raises:
        ValueError: it is not of this form.
    """
    found = _INPUT.fullmatch(text)
    if found is None:
        raise ValueError(f"expected NAME=DTYPE[SIZE,…] like x=float32[batch,3], found {text!r}")
    datatype = _NUMPY_NAMES.get(found["dtype"].lower(), found["dtype"].upper())
    if datatype not in DATATYPES:
        raise ValueError(f"expected one of {', '.join(_NUMPY_NAMES)}, found {found['dtype']!r}")
    sizes = [size.strip() for size in found["sizes"].split(",") if size.strip()]
    return GraphTensor(found["name"], datatype, [_size(size) for size in sizes])


def parse_dynamic(text: str) -> tuple[str, Range]:
    """Read NAME=MIN:TYPICAL:MAX.

    Raises:
        ValueError: it is not of this form, or not in rising order.
    """
    name, _, bounds = text.partition("=")
    parts = bounds.split(":")
    if not SIZE_NAME.fullmatch(name) or len(parts) != 3 or not all(map(str.isdecimal, parts)):
        raise ValueError(f"expected NAME=MIN:TYPICAL:MAX such as batch=1:4:16, found {text!r}")
    least, typical, most = map(int, parts)
    if not least <= typical <= most:
        raise ValueError(f"expected sizes in rising order, found {text!r}")
    return name, Range(least, typical, most)


def parse_values(text: str) -> tuple[str, tuple[float, float]]:
    """Read NAME=LOW:HIGH, the values that generated samples of an input may have.

    Raises:
        ValueError: it is not of this form.
    """
    name, equals, bounds = text.partition("=")
    low, colon, high = bounds.partition(":")
    try:
        pair = float(low), float(high)
    except ValueError:
        pair = (1.0, 0.0)
    if not (name and equals and colon) or not pair[0] <= pair[1]:
        raise ValueError(f"expected NAME=LOW:HIGH such as ids=0:30521, found {text!r}")
    return name, pair


def settle(
    said: Sequence[GraphTensor],
    found: Sequence[GraphTensor],
    dynamic: Mapping[str, Range],
    known: Mapping[str, Sequence[int]],
) -> Inputs:
    """Put together what the author says and what the model says of its inputs, in its order.

    Args:
        said: inputs by the author; none for the model's own. Names are the author's to choose.
        found: inputs by the model.
        dynamic: bounds by the author.
        known: bounds that the model declares.

    Raises:
        InputsUnclear: they contradict each other, or a size has no bounds.
    """
    tensors = [_agreed(one, other) for one, other in _paired(said, found)] if said else list(found)
    names = {size for one in tensors for size in one.shape if isinstance(size, str)}
    if unknown := dynamic.keys() - names:
        raise InputsUnclear(
            f"expected bounds for sizes of the inputs ({', '.join(sorted(names)) or 'all fixed'}), "
            f"found {min(unknown)!r}",
            code="INPUTS_DYNAMIC",
        )
    notes: list[str] = []
    ranges = {name: _bounds(name, tensors, dynamic, known, notes) for name in _in_order(tensors)}
    return Inputs(tensors, ranges, notes)


def _in_order(tensors: Sequence[GraphTensor]) -> list[str]:
    return list(dict.fromkeys(s for one in tensors for s in one.shape if isinstance(s, str)))


def _bounds(
    name: str,
    tensors: Sequence[GraphTensor],
    dynamic: Mapping[str, Range],
    known: Mapping[str, Sequence[int]],
    notes: list[str],
) -> Range:
    if name in dynamic:
        return dynamic[name]
    if name in known:
        return Range(*known[name])
    if all(name not in one.shape[1:] for one in tensors):
        assumed = ASSUMED_BATCH
        notes.append(f"assumed --dynamic {name}={assumed.min}:{assumed.opt}:{assumed.max}")
        return assumed
    raise InputsUnclear(
        f"expected bounds for the size {name!r}, found none",
        code="INPUTS_DYNAMIC",
        mend=f"Say what callers send: --dynamic {name}=MIN:TYPICAL:MAX",
    )


def _paired(
    said: Sequence[GraphTensor], found: Sequence[GraphTensor]
) -> list[tuple[GraphTensor, GraphTensor]]:
    by_name = {one.name: one for one in said}
    if by_name.keys() == {one.name for one in found}:
        return [(by_name[one.name], one) for one in found]
    if len(said) != len(found):
        raise InputsUnclear(
            f"expected {len(found)} inputs ({_list(found)}), found {len(said)} with --input "
            f"({_list(said)})",
            code="INPUTS_COUNT",
        )
    return list(zip(said, found, strict=True))


def _agreed(said: GraphTensor, found: GraphTensor) -> GraphTensor:
    fits = len(said.shape) == len(found.shape) and all(
        mine == theirs or isinstance(theirs, str)
        for mine, theirs in zip(said.shape, found.shape, strict=True)
    )
    if said.datatype != found.datatype or not fits:
        raise InputsUnclear(
            f"input {said.name!r}: expected {spell(found.datatype, found.shape)} as the model has "
            f"it, found {spell(said.datatype, said.shape)} with --input",
            code="INPUTS_FORM",
        )
    return said


def _size(text: str) -> int | str:
    if text.isdecimal():
        return int(text)
    if not SIZE_NAME.fullmatch(text):
        raise ValueError(f"expected a size as a number or a name, found {text!r}")
    return text


def _list(tensors: Sequence[GraphTensor]) -> str:
    return ", ".join(one.name for one in tensors) or "none"
