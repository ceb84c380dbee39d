"""An interrupt at a place that can be counted, instead of one at some time.

The interpreter heeds signals as a function begins and when a call of compiled code has returned
(and where a loop goes round, which calls something as well); a profile hears of both.
"""

from __future__ import annotations

import sys
from types import CodeType, FrameType, TracebackType
from typing import Any, Self

_CLIENT = ("superbrain.client.", "superbrain.transport.", "superbrain.wire.")


class Interrupted(TimeoutError):
    """What the handler raises: as many do, what might be a socket's error too."""


class InterruptAt:
    """Interrupts this thread, within, at the `place`-th place in code of the client.

    Attributes:
        where: it was, as people read it; empty where there are not as many places.
    """

    def __init__(self, place: int) -> None:
        self._left = place
        self.where = ""

    def __enter__(self) -> Self:
        sys.setprofile(self._heed)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.setprofile(None)

    def _heed(self, frame: FrameType, event: str, called: Any) -> None:  # noqa: ANN401
        if event not in {"call", "c_return"}:
            return
        if not frame.f_globals.get("__name__", "").startswith(_CLIENT):
            return
        self._left -= 1
        if self._left == 0:
            sys.setprofile(None)
            self.where = _place(frame.f_code, frame.f_lineno, event, called)
            raise Interrupted(self.where)


def _place(code: CodeType, line: int, event: str, called: object) -> str:
    after = f", after {getattr(called, '__name__', called)}" if event == "c_return" else ""
    return f"{code.co_filename}:{line} in {code.co_name}{after}"
