"""One conversion from beginning to end: load, ask, export, check, ask again, compare.

Everything happens in a folder that is thrown away, on a copy of the model; the author's files are
hashed before and after. What comes out is handed on only when the graph agrees with the original.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from superbrain.convert import parity, reference, samples, shapes, sources
from superbrain.convert.arrays import Array, read_array, write_array
from superbrain.convert.conversation import Conversation, Loaded
from superbrain.convert.environments import Environment
from superbrain.convert.errors import ConvertError, FrameworkFailed, ParityFailed
from superbrain.convert.inputs import Inputs, settle
from superbrain.convert.parity import OutputParity, Pair
from superbrain.convert.precision import Asked, Variant, make_variant
from superbrain.convert.samples import Sample, Samples
from superbrain.convert.sources import Source
from superbrain.domain.manifest import Graph, GraphTensor, Range, Tolerance
from superbrain.domain.rungs import TORCHSCRIPT_SUFFIX

OPSET = 18
NATIVE_RUNG = "torchscript:cpu"
_CASE_BYTES = 64 << 20
Progress = Callable[[str], None]


class Wish(msgspec.Struct, frozen=True):
    """What the author wants: the model, what is said of it, and how strict to be.

    `graph` is an ONNX file that the author exported; then nothing is exported, it is only compared.
    `native`: the framework's own form instead of ONNX. `precisions`: the ones that are wanted as
    well, with the largest error of each as a share; int8 is calibrated with `calibration`, and fp16
    is made without AutoCast if `light`.
    """

    source: Source
    graph: Path | None = None
    inputs: list[GraphTensor] = []
    outputs: list[str] = []
    dynamic: dict[str, Range] = {}
    values: dict[str, tuple[float, float]] = {}
    samples: Path | None = None
    weights: Path | None = None
    search: str = ""
    opset: int = OPSET
    simplify: bool = True
    within: float = parity.WITHIN
    seed: int = 0
    trust_pickle: bool = False
    precisions: dict[str, float] = {}
    calibration: Path | None = None
    light: bool = False
    native: bool = False


class Case(msgspec.Struct, frozen=True):
    """A golden case: what is asked, and what the original answered, in the graph's datatypes."""

    name: str
    request: dict[str, Array]
    response: dict[str, Array]


class Converted(msgspec.Struct, frozen=True):
    """A graph that agrees with its original; its files lie in the folder of the conversion.

    `rung`: what it was compared on; `packages`: where that rung's runtime may be found.
    """

    graph: Path
    inputs: list[GraphTensor]
    outputs: list[GraphTensor]
    dynamic: dict[str, Range]
    figures: list[OutputParity]
    cases: list[Case]
    versions: dict[str, str]
    notes: list[str]
    variants: list[Variant] = []
    rung: str = reference.RUNG
    packages: str = ""

    @property
    def tolerances(self) -> dict[str, Tolerance]:
        """By output."""
        return {one.output: one.tolerance for one in self.figures}


class Disagreement(ParityFailed):
    """The graph does not answer as the original does; `figures` say where."""

    def __init__(self, message: str, *, mend: str, figures: list[OutputParity]) -> None:
        super().__init__(message, code="PARITY", mend=mend)
        self.figures = figures


def convert(wish: Wish, environment: Environment, folder: Path, progress: Progress) -> Converted:
    """Convert a model, or compare a graph with its original.

    Args:
        wish: what and how.
        environment: of the framework that the original needs, ready.
        folder: empty; to work in.
        progress: is told what is being done.

    Raises:
        ConvertError: see its tree. `Disagreement` has the figures.
    """
    with _Unchanged(wish), _talk(environment, folder, progress) as talk:
        job = _Job(wish, talk, folder, progress, environment.packages_path)
        return job.run()


class _Unchanged:
    """Hash the author's files before and after: a converter that wrote into them is found out."""

    def __init__(self, wish: Wish) -> None:
        paths = (wish.source.path, wish.graph, wish.weights)
        self._before = {path: sources.digest_of(path) for path in paths if path is not None}

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for path, digest in self._before.items():
            if kind is None and sources.digest_of(path) != digest:
                raise FrameworkFailed(
                    f"{path}: expected a converter to leave it alone, found that it was changed",
                    code="SOURCE_CHANGED",
                    mend="Restore the file, and report which converter did this",
                )


def _talk(environment: Environment, folder: Path, progress: Progress) -> Conversation:
    def waiting(seconds: float) -> None:
        progress(f"{environment.framework} is at it, {seconds:.0f} s")

    return Conversation(environment, folder / "framework.log", waiting)


class _Job:
    def __init__(
        self, wish: Wish, talk: Conversation, folder: Path, progress: Progress, packages: str
    ) -> None:
        self._wish, self._talk, self._folder, self._tell = wish, talk, folder, progress
        self._notes: list[str] = []
        form = TORCHSCRIPT_SUFFIX if wish.native else ".onnx"
        self._graph = folder / "graph" / f"model{form}"
        self._rung = NATIVE_RUNG if wish.native else reference.RUNG
        self._packages = packages if wish.native else ""
        self._original: Path | None = None  # an ONNX file that is its own original

    def run(self) -> Converted:
        wish = self._wish
        loaded = self._load()
        inputs = self._settled(loaded)
        asked = self._samples(inputs)
        names = self._ask_original(asked, inputs, loaded)
        if wish.native:
            declared = self._keep_native(asked, inputs, names)
        else:
            declared = self._export(inputs, names)
        self._ask_graph(asked, inputs, declared)
        names = [one.name for one in declared]
        choosing = self._pairs(asked.choosing, len(names))
        holding = self._pairs(asked.holding, len(names))
        figures = self._compared(names, choosing, holding)
        outputs = shapes.output_tensors(names, choosing)
        dynamic = shapes.with_outputs(inputs.dynamic, outputs, choosing)
        if not wish.native:
            self._notes += self._talk.declare(self._graph, inputs.tensors, outputs).notes
        cases = self._cases(asked.holding, holding, outputs)
        variants = self._variants(asked, Graph("", list(inputs.tensors), outputs, dynamic))
        return Converted(
            self._graph,
            list(inputs.tensors),
            outputs,
            dynamic,
            figures,
            cases,
            loaded.versions,
            self._notes,
            variants,
            self._rung,
            self._packages,
        )

    # --- the original -------------------------------------------------------------------------

    def _load(self) -> Loaded:
        wish, source = self._wish, self._wish.source
        self._tell(f"loading {source.given}")
        place = self._folder / "original"
        copy = sources.copy_source(source.path, place) if source.path is not None else None
        weights = sources.copy_source(wish.weights, place) if wish.weights is not None else None
        if source.framework == "onnx" and copy is not None:
            self._original = copy
        loaded = self._talk.load(
            source=str(copy or source.given),
            kind=source.kind,
            inputs=self._said,
            weights=str(weights or ""),
            search=wish.search,
            trusted=wish.trust_pickle,
        )
        self._notes += loaded.notes
        return loaded

    @functools.cached_property
    def _said(self) -> list[GraphTensor]:
        """The inputs as the author says them, or as the author's own graph does."""
        if self._wish.inputs or self._wish.graph is None:
            return self._wish.inputs
        return _tensors(reference.look(self._wish.graph).inputs)

    def _settled(self, loaded: Loaded) -> Inputs:
        inputs = settle(self._said, loaded.inputs, self._wish.dynamic, loaded.dynamic)
        self._notes += inputs.notes
        return inputs

    def _samples(self, inputs: Inputs) -> Samples:
        wish = self._wish
        if wish.samples is None:
            asked = samples.generate(inputs.tensors, inputs.dynamic, wish.values, wish.seed)
        else:
            given = samples.read_samples(wish.samples, inputs.tensors)
            asked = samples.from_author(given, inputs.tensors, inputs.dynamic)
        for sample in (*asked.choosing, *asked.holding, _again(asked)):
            for at, one in enumerate(inputs.tensors):
                write_array(self._place(sample) / f"in/{at}.npy", sample.arrays[one.name])
        self._notes += asked.notes
        return asked

    def _ask_original(self, asked: Samples, inputs: Inputs, loaded: Loaded) -> list[str]:
        everything = [*asked.choosing, *asked.holding, _again(asked)]
        self._tell(f"the original answers {len(everything)} samples")
        places = [self._place(sample) for sample in everything]
        if self._original is None:
            names = self._talk.answer(places).outputs
        else:
            names = loaded.outputs
            outputs = _tensors(reference.look(self._original).outputs)
            graph = Graph("", list(loaded.inputs), outputs, inputs.dynamic)
            reference.answer(self._original, graph, places, into="original")
        self._check_repeats(asked, names)
        return self._wish.outputs or names

    def _check_repeats(self, asked: Samples, names: Sequence[str]) -> None:
        first, again = self._place(_repeated(asked)), self._place(_again(asked))
        for at, name in enumerate(names):
            pair = Pair("", {}, [_answer(first, at)], [_answer(again, at)])
            if not parity.measure(name, 0, [pair], parity.WITHIN).agrees:
                raise ParityFailed(
                    f"output {name!r}: expected the original to answer one sample the same way "
                    f"twice, found that it does not",
                    code="PARITY_REPEAT",
                    mend="Fix its seed, or switch off what is random in it (dropout, sampling)",
                )

    # --- the graph ----------------------------------------------------------------------------

    def _export(self, inputs: Inputs, names: Sequence[str]) -> list[GraphTensor]:
        """Make the graph; its outputs as the file declares them, in the original's order."""
        wish, exported, given = self._wish, self._folder / "exported.onnx", list(names)
        self._graph.parent.mkdir()
        if wish.graph is not None:
            exported = sources.copy_source(wish.graph, self._folder / "given")
            given = [one.name for one in _tensors(reference.look(exported).outputs)]
            _check_count(names, given)
        else:
            self._tell("exporting to ONNX")
            bounds = {name: [one.min, one.opt, one.max] for name, one in inputs.dynamic.items()}
            self._notes += self._talk.export(exported, wish.opset, bounds).notes
        self._tell("checking the graph")
        done = self._talk.finish(
            exported,
            self._graph,
            inputs=[one.name for one in inputs.tensors],
            outputs=names if wish.graph is None else given,
            simplify=wish.simplify and wish.graph is None,
        )
        self._notes += done.notes
        declared = {one.name: one for one in _tensors(reference.look(self._graph).outputs)}
        in_order = names if declared.keys() == set(names) else declared
        return [declared[name] for name in in_order]

    def _keep_native(
        self, asked: Samples, inputs: Inputs, names: Sequence[str]
    ) -> list[GraphTensor]:
        """Keep the framework's own form; what it gives is seen in the original's answers."""
        self._tell("writing TorchScript")
        self._graph.parent.mkdir()
        answers = self._pairs(asked.choosing, len(names), "original")
        outputs = shapes.output_tensors(names, answers)
        declaration = {"inputs": inputs.tensors, "outputs": outputs}
        self._talk.native(self._graph, msgspec.json.encode(declaration))
        return outputs

    def _ask_graph(self, asked: Samples, inputs: Inputs, declared: Sequence[GraphTensor]) -> None:
        everything = [*asked.choosing, *asked.holding]
        self._tell(f"the graph answers {len(everything)} samples")
        graph = Graph("", list(inputs.tensors), list(declared), inputs.dynamic)
        places = [self._place(sample) for sample in everything]
        reference.answer(self._graph, graph, places, rung=self._rung, packages=self._packages)

    # --- both ---------------------------------------------------------------------------------

    def _variants(self, asked: Samples, graph: Graph) -> list[Variant]:
        """The graph in the other precisions that are wanted, measured against the original."""
        wish, count = self._wish, len(graph.outputs)
        if not wish.precisions:
            return []
        calibration = [sample.arrays for sample in asked.choosing]
        if wish.calibration is not None:
            calibration = samples.read_samples(wish.calibration, graph.inputs)
            samples.check_samples(calibration, graph.inputs)
        held = Asked(
            self._graph,
            graph,
            [self._place(sample) for sample in (*asked.choosing, *asked.holding)],
            lambda answers: self._pairs(asked.choosing, count, answers),
            lambda answers: self._pairs(asked.holding, count, answers),
        )
        found = []
        for precision, within in wish.precisions.items():
            self._tell(f"the graph in {precision}, and how far it is from the original")
            scratch = self._folder / "precisions"
            found.append(
                make_variant(precision, within, held, calibration, scratch, light=wish.light)
            )
        return found

    def _pairs(self, asked: Sequence[Sample], count: int, answers: str = "graph") -> list[Pair]:
        found = []
        for sample in asked:
            place = self._place(sample)
            graph = [read_array(place / answers / f"{at}.npy") for at in range(count)]
            original = [parity.as_graph(_answer(place, at), graph[at]) for at in range(count)]
            found.append(Pair(sample.name, sample.sizes, original, graph))
        return found

    def _compared(
        self, names: Sequence[str], choosing: Sequence[Pair], holding: Sequence[Pair]
    ) -> list[OutputParity]:
        self._tell("comparing")
        within = self._wish.within
        figures = [parity.measure(name, at, choosing, within) for at, name in enumerate(names)]
        if wrong := [one for one in figures if not one.agrees]:
            raise Disagreement(
                f"output {wrong[0].output!r}: expected the graph to answer as the original does, "
                f"found {wrong[0].reason}; nothing was written",
                mend=_advice(self._wish, figures),
                figures=figures,
            )
        self._notes += [
            f"output {one.output!r} was the same in every sample: its golden cases prove little"
            for one in figures
            if one.constant
        ]
        return parity.hold(figures, holding)

    def _cases(
        self, asked: Sequence[Sample], pairs: Sequence[Pair], outputs: Sequence[GraphTensor]
    ) -> list[Case]:
        cases: list[Case] = []
        for sample, pair in zip(asked, pairs, strict=True):
            response = dict(zip((one.name for one in outputs), pair.original, strict=True))
            size = sum(one.nbytes for one in (*sample.arrays.values(), *response.values()))
            if size > _CASE_BYTES and cases:
                self._notes.append(f"{sample.name} agrees, but is too large to be a golden case")
                continue
            cases.append(Case(sample.name, sample.arrays, response))
        return cases

    def _place(self, sample: Sample) -> Path:
        return self._folder / "samples" / sample.name


def _repeated(asked: Samples) -> Sample:
    """The sample that is asked twice: of typical size, for a tiny one may repeat by chance."""
    return asked.choosing[min(1, len(asked.choosing) - 1)]


def _again(asked: Samples) -> Sample:
    """That sample once more, to see whether the original repeats itself."""
    return _repeated(asked)._replace(name="again")


def _answer(place: Path, at: int) -> Array:
    return read_array(place / f"original/{at}.npy")


def _tensors(found: Sequence[tuple[str, str, list[int | str | None]]]) -> list[GraphTensor]:
    return [
        GraphTensor(
            name,
            datatype,
            [
                size if isinstance(size, (int, str)) and size != "" else f"{name}_{axis}"
                for axis, size in enumerate(shape)
            ],
        )
        for name, datatype, shape in found
    ]


def _check_count(names: Sequence[str], declared: Sequence[str]) -> None:
    """Hold a graph that the author exported to the original's number of outputs."""
    if len(names) != len(declared):
        raise ConvertError(
            f"expected a graph with the original's {len(names)} outputs ({', '.join(names)}), "
            f"found {len(declared)} ({', '.join(declared)})",
            code="OUTPUTS_COUNT",
        )


def _advice(wish: Wish, figures: Sequence[OutputParity]) -> str:
    if wish.native:
        return "Does the module keep something between two calls, or is its answer random?"
    if wish.graph is not None:
        return "Is this graph of this model? Look at its normalisation, layout (NCHW, NHWC), opset"
    if wish.source.kind == "script":
        return "Try another --opset, then --no-simplify; or serve the script as it is: --native"
    if wish.simplify:
        return "Try --no-simplify, then another --opset; see which sizes are wrong in the table"
    worst = max((one.share for one in figures), default=0.0)
    limit = f"{worst * 1.5:.1g}"
    return (
        f"Try another --opset or exporter version. If that is near enough for you: --within {limit}"
    )
