"""Errors that a person or a program can act on: the root of every error tree in superbrain.

Every error says what was expected and what was found (`message`) and, where there is one, the
next thing to do (`mend`). Each package draws its own branches below `SuperbrainError`; the ones
here are what a caller of the inference protocol can meet, with the code that travels on the wire:

    SuperbrainError
    └── RequestError
        ├── InvalidArgument     INVALID_ARGUMENT     the request is wrong; it will stay wrong
        ├── NotFound            NOT_FOUND            no such model or version
        ├── Unavailable         UNAVAILABLE          nobody can answer now; try again later
        ├── ResourceExhausted   RESOURCE_EXHAUSTED   the queue is full; slow down
        ├── DeadlineExceeded    DEADLINE_EXCEEDED    the time the caller gave has passed
        └── Internal            INTERNAL             the model or superbrain failed on this request
"""

from __future__ import annotations

from typing import ClassVar


class SuperbrainError(Exception):
    """Root of all errors: `message` names object, expectation and finding; `mend` the way out."""

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message}. {self.mend}" if self.mend else self.message


class RequestError(SuperbrainError):
    """What one inference request can end with instead of an answer."""

    code: ClassVar[str] = "INTERNAL"


class InvalidArgument(RequestError):
    """The request contradicts the protocol or the model's interface."""

    code = "INVALID_ARGUMENT"


class NotFound(RequestError):
    """No deployment answers for this model name or version."""

    code = "NOT_FOUND"


class Unavailable(RequestError):
    """Nobody can answer right now; the same request may succeed later."""

    code = "UNAVAILABLE"


class ResourceExhausted(RequestError):
    """A bounded queue is full."""

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(RequestError):
    """The deadline passed before an answer was there; an expired request is never executed."""

    code = "DEADLINE_EXCEEDED"


class Internal(RequestError):
    """The model, its pipeline code or superbrain itself failed on this request."""

    code = "INTERNAL"


_BY_CODE: dict[str, type[RequestError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        Unavailable,
        ResourceExhausted,
        DeadlineExceeded,
        Internal,
    )
}


def error_from_code(code: str, message: str, mend: str = "") -> RequestError:
    """Build the error that `code` stands for; an unknown code becomes `Internal`."""
    kind = _BY_CODE.get(code)
    if kind is None:
        return Internal(f"{message} (unknown error code {code!r})", mend=mend)
    return kind(message, mend=mend)
