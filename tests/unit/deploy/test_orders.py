"""An order that cannot be carried out is refused with what an operator can do instead."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, cast

import pytest

from superbrain.bundle.store import Store
from superbrain.deploy.journal import Journal
from superbrain.deploy.orders import OrderRefused, Orders
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = dt.datetime(2026, 3, 1, 9, 30, tzinfo=dt.UTC)
EXPIRED = Reason("DATE_EXPIRED", "expected a date ahead, found 2020", "Build a newer one")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


class Driver:
    """One whose inbox is empty."""

    def holds(self, _deployment: Deployment) -> bool:
        return False


@pytest.fixture
def orders(tmp_path: Path, journal: Journal) -> Orders:
    """Orders over an empty store; none of them has the driver begin anything."""
    return Orders(journal, Store(tmp_path / "store"), cast("Any", Driver()), lambda: Trust(keys=()))


def ended(journal: Journal, state: State, reason: Reason | None) -> None:
    made = Deployment(0, "ocr", "3.1.0", 31, "ab" * 32, ("one",), state=state, reason=reason)
    journal.create(made, NOW)


def test_what_was_refused_before_it_was_taken_is_not_asked_for_again(
    journal: Journal, orders: Orders
) -> None:
    ended(journal, State.REJECTED, EXPIRED)
    with pytest.raises(OrderRefused, match=r"ocr 3\.1\.0 was refused.*found 2020") as caught:
        orders.retry("ocr", "3.1.0")
    assert caught.value.code == "NOT_RETAINED"
    assert caught.value.mend.startswith("Build a newer one. Another file is needed")


@pytest.mark.parametrize("state", [State.FAILED, State.RETIRED])
def test_what_the_store_has_let_go_is_to_be_dropped_again(
    journal: Journal, orders: Orders, state: State
) -> None:
    ended(journal, state, None)
    with pytest.raises(OrderRefused, match="is not in the store any more") as caught:
        orders.retry("ocr")
    assert caught.value.mend == "Drop it into the inbox again"
