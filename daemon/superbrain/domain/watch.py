"""Rules over what a serving process is seen to do: does it leak, has it become slow, whose fault.

Pure: times and figures are passed in, verdicts come out. What is remembered is bounded however long
a process lives.

    Growth   one resource of one process over its whole life -> a leak, or none
    Drift    how long work takes against how long it should take -> slower, or not
    blame    the model or its host, when a model has become slow
"""

from __future__ import annotations

import collections
import math
import statistics
from typing import TYPE_CHECKING, Final

import msgspec

from superbrain.domain.policy import ErrorBudget
from superbrain.domain.quantities import bytes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_SAMPLES: Final = 48  # of a life; a multiple of the parts that are compared
_PARTS: Final = 3
_STILL_GROWING: Final = 0.25  # of all growth must belong to the last part
_DRIFT_SAMPLES: Final = 512
_DRIFT_LEAST: Final = 3
_STOLEN_PERCENT: Final = 10.0
_BUSY_PERCENT: Final = 90.0


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How workers are watched.

    `hang_grace_s`: an execution may take so much longer than the manifest's request timeout;
    `warm_up_s`: what it takes before that is not called a leak, `sample_s`: seconds between two
    samples, `leak_share`: growth beyond this share of what it had then is a leak, if it is
    `leak_mb` at least; `drift_factor`: slower by this factor for `drift_s` seconds is a drift;
    `baseline_s`: how long a process is served before its own times are what it is held against;
    `drift_spends_budget`: a drift within probation brings the previous version back.
    """

    hang_grace_s: float = 2.0
    warm_up_s: float = 300.0
    sample_s: float = 60.0
    leak_share: float = 0.5
    leak_mb: int = 64
    drift_factor: float = 3.0
    drift_s: float = 300.0
    baseline_s: float = 3600.0
    drift_spends_budget: bool = True


class Reproof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When one golden case is run again in a serving process.

    `every_s`: seconds between two of them in each process, 0 for never; `postpone_s`: how long it
    waits for the process to be idle.
    """

    every_s: float = 300.0
    postpone_s: float = 30.0


class Resource(msgspec.Struct, frozen=True):
    """Something that a process may leak: what it is called, and from which growth on it matters."""

    name: str
    least: float
    in_bytes: bool = False

    def text(self, amount: float) -> str:
        """Write an amount of it."""
        return bytes_text(int(amount)) if self.in_bytes else f"{amount:.0f}"


DESCRIPTORS: Final = Resource("descriptors", 100)
THREADS: Final = Resource("threads", 32)


def memory_resource(watch: Watch) -> Resource:
    """Give the resource memory, as configured."""
    return Resource("memory", watch.leak_mb << 20, in_bytes=True)


class Growth:
    """One resource of one process over its whole life.

    Samples are thinned out as they become many, so the few that are kept always span all of it: a
    leak of a megabyte a day is found like one of a megabyte a second. Of each third the smallest
    sample counts, so what goes up and down is no leak; and what has grown once and then stays is
    none either.
    """

    def __init__(self, resource: Resource, share: float) -> None:
        self.resource = resource
        self._share = share
        self._samples: list[float] = []
        self._every = 1
        self._seen = 0

    def add(self, amount: float) -> None:
        """Take note of one sample; they come at equal intervals."""
        if self._seen % self._every == 0:
            self._samples.append(amount)
        self._seen += 1
        if len(self._samples) >= _SAMPLES:
            self._samples = self._samples[::2]
            self._every *= 2

    def leak(self) -> str:
        """Say what has leaked and how much; empty for nothing."""
        samples = self._samples
        if len(samples) < 2 * _PARTS:
            return ""
        part = len(samples) // _PARTS
        first, middle, last = (
            min(samples[len(samples) - n * part : len(samples) - (n - 1) * part or None])
            for n in (_PARTS, 2, 1)
        )
        grown = last - first
        steady = first < middle < last and last - middle >= _STILL_GROWING * grown
        if not steady or grown < max(self.resource.least, self._share * first):
            return ""
        text = self.resource.text
        return f"{self.resource.name} grew from {text(samples[0])} to {text(samples[-1])}"


class Slower(msgspec.Struct, frozen=True):
    """Work takes `found_ms` where `expected_ms` was right; `than` says where that comes from."""

    ratio: float
    expected_ms: float
    found_ms: float
    than: str

    @property
    def sentence(self) -> str:
        """Say it with figures."""
        return (
            f"{self.ratio:.1f} times slower than {self.than}, "
            f"{self.expected_ms:.3g} ms → {self.found_ms:.3g} ms"
        )


class Drift:
    """How long one kind of work takes in one process, against how long it should.

    A drift begins when the median over the whole window is beyond the factor, and ends when it is
    back below the factor's square root: in between nothing changes, so it does not flap.
    """

    def __init__(self, factor: float, window_s: float, than: str) -> None:
        self._factor = factor
        self._window_s = window_s
        self._than = than
        self._recent: collections.deque[tuple[float, float, float]] = collections.deque(
            maxlen=_DRIFT_SAMPLES
        )
        self._since = math.inf
        self.slower: Slower | None = None

    @property
    def ratio(self) -> float:
        """How many times slower than expected it is now; 0.0 while that is not known."""
        if len(self._recent) < _DRIFT_LEAST:
            return 0.0
        return statistics.median(found / expected for _, found, expected in self._recent)

    def add(self, at: float, found_ms: float, expected_ms: float) -> None:
        """Take note of one time and of what it should be."""
        if expected_ms <= 0:
            return
        self._since = min(self._since, at)
        self._recent.append((at, found_ms, expected_ms))
        while len(self._recent) > _DRIFT_LEAST and self._recent[0][0] < at - self._window_s:
            self._recent.popleft()
        self._judge(at)

    def _judge(self, now: float) -> None:
        ratio = self.ratio
        beyond = ratio > self._factor and now - self._since >= self._window_s
        if not beyond and (self.slower is None or ratio < math.sqrt(self._factor)):
            self.slower = None
            return
        expected = statistics.median(expected for _, _, expected in self._recent)
        found = statistics.median(found for _, found, _ in self._recent)
        self.slower = Slower(ratio, expected, found, self._than)


class HostLoad(msgspec.Struct, frozen=True):
    """How busy the host is: share of all processors in use, and share that its own host took."""

    busy_percent: float = 0.0
    stolen_percent: float = 0.0


def blame(others: Sequence[float], factor: float, load: HostLoad) -> str:
    """Say why the host, not the model, is to blame for a slow model; empty when the model is.

    The host is to blame when its processors are busy or taken away from it, or when at least half
    of the other models have become slow too. When in doubt the model is innocent: it is warned
    about in any case, and only not rolled back.

    Args:
        others: how many times slower the other models are, of those that are measured.
        factor: what counts as slow.
        load: of the host, over the recent seconds.
    """
    if load.stolen_percent >= _STOLEN_PERCENT:
        return f"{load.stolen_percent:.0f} % of this machine's processor time is stolen"
    if load.busy_percent >= _BUSY_PERCENT:
        return f"this host's processors are {load.busy_percent:.0f} % busy"
    slow = sum(ratio > math.sqrt(factor) for ratio in others)
    if slow and 2 * slow >= len(others):
        return f"{slow} of {len(others)} other models are slow too"
    return ""


def reproof_interval_s(reproof: Reproof, probation_s: float, *, in_probation: bool) -> float:
    """Say how long after one golden case the next follows; 0 for never.

    What is on probation is looked at more closely: about six times before it is over.
    """
    if not in_probation or not reproof.every_s:
        return reproof.every_s
    return min(reproof.every_s, max(probation_s / 6, 1.0))


class Usual:
    """How long a process's own work took in its first time of service: the median of it."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._began = math.inf
        self._taken_at = -math.inf
        self._times: list[float] = []
        self.ms = 0.0

    def add(self, at: float, milliseconds: float) -> None:
        """Take note of one time; `ms` is there once the first time is over."""
        if self.ms:
            return
        self._began = min(self._began, at)
        if at - self._taken_at >= self._for_s / _DRIFT_SAMPLES:
            self._times.append(milliseconds)
            self._taken_at = at
        if at - self._began >= self._for_s and len(self._times) >= _DRIFT_LEAST:
            self.ms = statistics.median(self._times)
            self._times.clear()


class Rules(msgspec.Struct, frozen=True):
    """All rules by which the serving of models is judged."""

    budget: ErrorBudget = ErrorBudget()
    watch: Watch = Watch()
    reproof: Reproof = Reproof()
    probation_s: float = 60.0
