"""Requests from lane frame to answer: decode, let the model infer, encode; one, or a batch.

Whatever bundle code raises ends here as a typed error of this one request. Nothing it does short
of ending the process may stop the loop that calls.

A program's requests bear the same header as long as names, datatypes and shapes stay, apart from
the id of those that come through the gateway. So what it says is worked out once (`RequestForm`).
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from superbrain.serve import child
from superbrain.serve.request_form import NO_ROOMS, RequestForm
from superbrain.transport.frame_writer import encode_frame
from superbrain.wire import lane
from superbrain.wire.errors import Internal, RequestError, SuperbrainError
from superbrain.wire.messages import encode_error, salvage_id
from superbrain.wire.naming import with_id, without_id
from superbrain.wire.sentences import sentence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superbrain.serve.regions import Regions
    from superbrain.serve.request_form import Usual
    from superbrain.serve.served import Executing, ServedModel
    from superbrain.wire.datatypes import Array

_MOST_FORMS = 256
_LONGEST_KEPT_BYTES = 4096


class Outcome:
    """How one request ended: header and tensors of the answer, or the error in the header.

    `sent`: how many bytes of its frame the peer has taken already; below 0, it takes none.
    `made_of`: the form of the request and the outputs, where somebody tells of requests.
    """

    __slots__ = ("error", "header", "kind", "made_of", "number", "sent", "tensors")

    def __init__(
        self,
        number: int,
        header: bytes,
        tensors: list[lane.Data],
        error: RequestError | None = None,
    ) -> None:
        self.kind = lane.RESPONSE if error is None else lane.ERROR
        self.number = number
        self.header = header
        self.tensors = tensors
        self.error = error
        self.sent = 0
        self.made_of: tuple[RequestForm, Mapping[str, Array]] | None = None

    def encode(self) -> list[lane.Data]:
        """Give the buffers of the frame."""
        return encode_frame(self.kind, self.header, self.tensors, request_id=self.number)


class _Question:
    """A request frame, decoded."""

    __slots__ = ("arrays", "form", "name", "number", "rooms")

    def __init__(
        self, form: RequestForm, name: bytes, frame: lane.LaneFrame, regions: Regions
    ) -> None:
        self.form = form
        self.name = name
        self.number = frame.request_id
        self.rooms = form.rooms(regions)
        self.arrays = form.arrays(frame.tensors, regions)

    def answered(self, model: ServedModel, outputs: Mapping[str, Array]) -> Outcome:
        """Encode the response."""
        header, tensors = self.form.respond(model, outputs, self.rooms)
        outcome = Outcome(self.number, with_id(header, self.name), tensors)
        outcome.made_of = self.form, outputs
        return outcome


class Execution:
    """Answers request frames with one model. Not thread-safe.

    `told`: whether somebody tells of requests. `usual`: by header, how requests were answered that
    come again and again.
    """

    def __init__(self, model: ServedModel, *, told: bool = False) -> None:
        self._model = model
        self._told = told
        self._forms: dict[bytes, RequestForm] = {}
        self.usual: dict[bytes, Usual] = {}

    def one(self, frame: lane.LaneFrame, regions: Regions) -> Outcome:
        """Answer one request frame; never raises, whatever the bundle's code does.

        Args:
            frame: the request.
            regions: shared memory of the lane that the request came by.
        """
        model = self._model
        try:
            form, name = self._form(frame)
            rooms = form.rooms(regions) if form.outputs else NO_ROOMS
            arrays = form.arrays(frame.tensors, regions)
            if form.fits:
                outputs = model.answer(arrays)
            else:
                outputs = model.infer(arrays)
                form.fits = True
            header, tensors = form.respond(model, outputs, rooms)
            outcome = Outcome(frame.request_id, with_id(header, name), tensors)
            if form.shares:
                self._remember(frame, form, regions)
            if self._told:
                outcome.made_of = form, outputs
            return outcome
        except BaseException as error:  # noqa: BLE001 - SystemExit of bundle code ends a request, not us
            return _failed(frame, error)

    def conclude(
        self, frame: lane.LaneFrame, answer: Mapping[str, Array] | BaseException, regions: Regions
    ) -> Outcome:
        """Give the outcome of a usual request that the model has answered; never raises."""
        if isinstance(answer, BaseException):
            return _failed(frame, answer)
        try:
            form, name = self._form(frame)
            rooms = form.rooms(regions) if form.outputs else NO_ROOMS
            header, tensors = form.respond(self._model, answer, rooms)
            outcome = Outcome(frame.request_id, with_id(header, name), tensors)
            outcome.made_of = form, answer
            return outcome
        except BaseException as error:  # noqa: BLE001 - as in `one`
            return _failed(frame, error)

    def together(
        self, requests: Sequence[tuple[lane.LaneFrame, Regions]], executing: Executing
    ) -> list[Outcome]:
        """Answer several request frames with as few runs as may be; never raises.

        Args:
            requests: frames, each with the shared memory of its lane.
            executing: is told before every step whose work it is, as positions in `requests`.
        """
        questions: dict[int, _Question] = {}
        outcomes: dict[int, Outcome] = {}
        for position, (frame, regions) in enumerate(requests):
            try:
                questions[position] = _Question(*self._form(frame), frame, regions)
            except BaseException as error:  # noqa: BLE001 - as in `one`
                outcomes[position] = _failed(frame, error)
        positions = list(questions)

        def told(members: Sequence[int]) -> None:
            executing([positions[n] for n in members])

        arrays = [question.arrays for question in questions.values()]
        answers = self._model.infer_together(arrays, told)
        for position, answer in zip(positions, answers, strict=True):
            outcomes[position] = self._outcome(requests[position][0], questions[position], answer)
        return [outcomes[position] for position in range(len(requests))]

    def _form(self, frame: lane.LaneFrame) -> tuple[RequestForm, bytes]:
        """Read a header, or remember it; give its form, and the id that is not part of it."""
        header, name = shared_header(frame)
        form = self._forms.get(header)
        if form is None:
            form = RequestForm(self._model, header)
            lone = form.lone or (form.id and frame.kind != lane.REQUEST)
            if len(header) <= _LONGEST_KEPT_BYTES and not lone:
                if len(self._forms) >= _MOST_FORMS:
                    self._forms.clear()
                    self.usual.clear()
                self._forms[header] = form
        elif (usual := form.usual(self._model)) is not None:
            self.usual[header] = usual
        return form, name

    def _remember(self, frame: lane.LaneFrame, form: RequestForm, regions: Regions) -> None:
        """Keep how a request in shared memory was answered, as long as its regions stay."""
        header = shared_header(frame)[0]
        if header in regions.usual or header not in self._forms:
            return
        usual = form.usual_on(self._model, regions)
        if usual is not None:
            if len(regions.usual) >= _MOST_FORMS:
                regions.usual.clear()
            regions.usual[header] = usual

    def _outcome(
        self,
        frame: lane.LaneFrame,
        question: _Question,
        answer: Mapping[str, Array] | BaseException,
    ) -> Outcome:
        if isinstance(answer, BaseException):
            return _failed(frame, answer)
        try:
            return question.answered(self._model, answer)
        except BaseException as error:  # noqa: BLE001 - as in `one`
            return _failed(frame, error)


def shared_header(frame: lane.LaneFrame) -> tuple[bytes, bytes]:
    """Give the header that requests alike share, and the id that is this one's alone.

    On a client's own lane all bear the same id, for the number of each is in its frame.
    """
    header = bytes(frame.header)
    if frame.kind == lane.REQUEST or len(header) > _LONGEST_KEPT_BYTES:
        return header, b""
    return without_id(header)


def _failed(frame: lane.LaneFrame, error: BaseException) -> Outcome:
    """Answer one request frame with what it failed with."""
    found = error if isinstance(error, RequestError) else _unforeseen(error, called(frame))
    _let_go(error)
    return refuse(frame, found)


def refuse(frame: lane.LaneFrame, error: RequestError) -> Outcome:
    """Answer one request frame with an error."""
    _let_go(error)
    header = encode_error(error, salvage_id(frame.header))
    return Outcome(frame.request_id, header, [], error)


def _let_go(error: BaseException) -> None:
    """Let an error hold on to nothing.

    Its traceback has the frames of all who were called, and of their callers: the tensors of the
    request are there, and whoever holds this error. It would be garbage in a circle, and large.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


def called(frame: lane.LaneFrame) -> str:
    """Give a request's id for the log: on a client's own lane its number is part of it."""
    request_id = salvage_id(frame.header)
    return f"{request_id}-{frame.request_id}" if frame.kind == lane.REQUEST else request_id


def _unforeseen(error: BaseException, request_id: str) -> RequestError:
    described = sentence(str(error) if isinstance(error, SuperbrainError) else repr(error))
    child.log(
        "request_failed",
        request_id=request_id,
        error=described,
        traceback="".join(traceback.format_tb(error.__traceback__, limit=-8)) + described,
    )
    return Internal(f"expected an answer of the model, its code raised {described[:500]}")
