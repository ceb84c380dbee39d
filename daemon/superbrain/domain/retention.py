"""What must be kept, of bundles and of the past: pure rules over the journal's deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from superbrain.domain.deployment import UNFINISHED, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from superbrain.domain.deployment import Deployment

KEPT_DEPLOYMENTS: Final = 200
_NEEDED = frozenset({*UNFINISHED, State.PROBATION, State.LIVE, State.ROLLING_BACK, State.DRAINING})


def retained(
    deployments: Mapping[str, Sequence[Deployment]], current: Mapping[str, int]
) -> set[str]:
    """Give the digests of all bundles that must stay.

    Args:
        deployments: per model its deployments, newest first.
        current: per model the id of its current deployment, 0 for none.

    Returns:
        The digests of what serves and what served before it, of everything unfinished, and, so
        that they can be tried again, of the newest deployment of each model however it ended and,
        where nothing serves, of the one that did last.
    """
    keep: set[str] = set()
    for name, rows in deployments.items():
        by_id = {row.id: row for row in rows}
        serving = by_id.get(current.get(name, 0))
        previous = by_id.get(serving.predecessor) if serving else _last_served(rows)
        wanted = [row for row in (serving, previous, *rows[:1]) if row is not None]
        wanted += [row for row in rows if row.state in _NEEDED]
        keep.update(row.digest for row in wanted)
    return keep


def _last_served(rows: Sequence[Deployment]) -> Deployment | None:
    return next((row for row in rows if row.state is State.RETIRED), None)


def remembered(newest: Iterable[Deployment], relevant: Iterable[Deployment]) -> set[int]:
    """Give the ids of a model's deployments whose past is kept; that of all others is forgotten.

    Args:
        newest: the model's `KEPT_DEPLOYMENTS` newest.
        relevant: what may be needed again, however old it is.
    """
    return {deployment.id for deployment in (*newest, *relevant)}
