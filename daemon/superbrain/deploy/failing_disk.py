"""What may fail on a disk that is full or broken: it is logged, and everything else goes on.

with disk_may_fail():
store.sweep_staging()
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from superbrain.deploy.journal_file import JournalError
from superbrain.domain.errors import StoreError
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)


@contextlib.contextmanager
def disk_may_fail() -> Iterator[None]:
    """What cannot be cleared away takes room and does no other harm."""
    try:
        yield
    except StoreError as error:
        event(log, Event.TASK_FAILED, logging.ERROR, str(error))


@contextlib.contextmanager
def journal_may_fail() -> Iterator[None]:
    """What serves goes on serving though the journal cannot be written; the next start mends it."""
    try:
        yield
    except JournalError as error:
        event(log, Event.TASK_FAILED, logging.ERROR, str(error))
