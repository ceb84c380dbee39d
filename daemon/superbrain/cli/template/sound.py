"""The template of audio: windows of sound, with a state from one to the next where there is one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from superbrain.cli.template.fitting import (
    FLOATS,
    INTEGERS,
    NEAR,
    ONE,
    Fitted,
    GraphFile,
    misfit,
    one_of,
    ranges_by_axis,
)
from superbrain.domain.manifest import Close, Exact, GraphTensor, InterfaceTensor, Range, Tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_USUAL_RATE = 16_000
_WINDOWS = Range(min=1, opt=1, max=16)
_NEAR_STATE = Close(rtol=1e-2, atol=1e-3)
_PCM_ASIDE = (
    "16-bit samples instead: take this input, and nothing else changes.",
    '{ name = "audio", datatype = "INT16", shape = [-1], description = "mono, 16-bit samples" }',
)


def fit_audio(graphs: Mapping[str, GraphFile]) -> Fitted:
    """Sound in, an answer for every window out; state in and out."""
    (graph,) = graphs.values()
    sound = _sound(graph)
    states = _states(graph, sound)
    scalars = [t for t in graph.inputs if t is not sound and t.name not in states.values()]
    window = sound.shape[-1] if isinstance(sound.shape[-1], int) else _USUAL_RATE
    answers = [t for t in graph.outputs if t.name not in states]
    if not answers or any(math.prod(_closed(t)) != 1 for t in scalars):
        misfit(graph, _EXPECTED, [*graph.inputs, *graph.outputs])
    batched = len(sound.shape) > 1
    state_shapes = {t.name: _closed(t) for t in graph.inputs if t.name in states.values()}
    kept = sum(math.prod(shape) for shape in state_shapes.values())
    return Fitted(
        description="Answers for every window of a sound.",
        code={"audio/pipeline.py": "pipeline.py", "shared/sizes.py": "sizes.py"},
        constants={
            "pipeline.py": {
                "GRAPH": graph.name,
                "INPUT": sound.name,
                "SHAPE": (*_closed(sound)[1:-1], window) if batched else (window,),
                "BATCHED": batched,
                "OUTPUTS": tuple(t.name for t in answers),
                "STATES": states,
                "STATE_SHAPES": state_shapes,
                "SCALARS": {t.name: (_USUAL_RATE,) * len(t.shape) or _USUAL_RATE for t in scalars},
                "WINDOW": window,
                "HOP": window,
            }
        },
        assets={},
        ranges={graph.name: _ranges(graph, sound, window, many=batched and not states)},
        inputs=[
            InterfaceTensor("audio", "FP32", [-1], f"mono, {_USUAL_RATE} a second, -1 to 1"),
            *([_state(kept, "zeros to begin; else `state` of the answer before")] * bool(kept)),
        ],
        outputs=[
            *(_answer(tensor, batched=batched) for tensor in answers),
            *([_state(kept, "send it with the next part of the stream")] * bool(kept)),
        ],
        tolerances=_tolerances(answers, state=bool(kept)),
        aside=_PCM_ASIDE,
    )


_EXPECTED = (
    "an input of sound [samples], [N, samples] or [N, 1, samples], perhaps states that come back "
    "as outputs, perhaps single numbers such as the rate; and at least one output more"
)


def _sound(graph: GraphFile) -> GraphTensor:
    """Find the input that is sound: by its name, else the first that can be."""
    named = [t for t in graph.inputs if not any(w in t.name.lower() for w in ("state", "cache"))]
    return one_of(
        graph,
        _EXPECTED,
        named,
        lambda t: t.datatype in FLOATS and 0 < len(t.shape) <= 3 and t.shape[-1] != 1,
    )


def _states(graph: GraphFile, sound: GraphTensor) -> dict[str, str]:
    """Pair outputs with the inputs that they become: of one datatype and rank, in their order."""
    others = [t for t in graph.inputs if t is not sound]
    taken = [t for t in others if t.datatype in FLOATS and len(t.shape) > 1]
    states: dict[str, str] = {}
    for given in taken:
        match = next((t for t in _alike(given, graph.outputs) if t.name not in states), None)
        if match is None:
            misfit(graph, f"an output that state {given.name!r} comes back as", graph.outputs)
        states[match.name] = given.name
    return states


def _alike(given: GraphTensor, outputs: Sequence[GraphTensor]) -> list[GraphTensor]:
    """Outputs that may be the state, those whose name begins like its name first."""
    fitting = [
        t for t in outputs if t.datatype == given.datatype and len(t.shape) == len(given.shape)
    ]
    word = given.name.lower()[:3]
    return sorted(fitting, key=lambda tensor: word not in tensor.name.lower())


def _closed(tensor: GraphTensor) -> tuple[int, ...]:
    """The shape for one stream: what is open is 1."""
    return tuple(size if isinstance(size, int) else 1 for size in tensor.shape)


def _ranges(graph: GraphFile, sound: GraphTensor, window: int, *, many: bool) -> dict[str, Range]:
    last = len(sound.shape) - 1
    open_sizes = ranges_by_axis(graph.inputs, dict.fromkeys(range(8), ONE))
    batch = {0: _WINDOWS if many else ONE} if last else {}
    return open_sizes | ranges_by_axis([sound], batch | {last: Range(window, window, window)})


def _state(size: int, description: str) -> InterfaceTensor:
    return InterfaceTensor("state", "FP32", [size], description)


def _answer(tensor: GraphTensor, *, batched: bool) -> InterfaceTensor:
    sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
    shape = [-1, *(sizes[1:] if batched else sizes)]
    return InterfaceTensor(tensor.name, tensor.datatype, shape, "one row for each window")


def _tolerances(answers: Sequence[GraphTensor], *, state: bool) -> dict[str, Tolerance]:
    found: dict[str, Tolerance] = {
        t.name: Exact() if t.datatype in {*INTEGERS, "BYTES", "BOOL"} else NEAR for t in answers
    }
    return found | ({"state": _NEAR_STATE} if state else {})
