"""Sizes: what bundle.toml says of the sizes that a graph takes, fixed ones and open ones alike."""

import math
from typing import NamedTuple


class Bounds(NamedTuple):
    """What one size of a graph may be; `min` is `max` where it is fixed."""

    min: int
    opt: int
    max: int

    @property
    def fixed(self):
        return self.min == self.max

    def multiples(self, of):
        """The same within the multiples of a number, as far as there are any; fixed as it is."""
        least, most = math.ceil(self.min / of) * of, self.max // of * of
        return self if self.fixed or least > most else Bounds(least, self.opt, most)

    def hold(self, length, of):
        """The next multiple that has room for `length`, within the bounds."""
        return min(max(math.ceil(length / of) * of, self.min), self.max)


def bounds(size, dynamic):
    """The bounds of one size of a declared shape: a number, or the name of a dynamic size."""
    if isinstance(size, int):
        return Bounds(size, size, size)
    named = dynamic[size]
    return Bounds(named.min, named.opt, named.max)


def tensor_named(name, tensors):
    """The one of a graph's inputs or outputs that has this name."""
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    names = ", ".join(tensor.name for tensor in tensors)
    raise ValueError(f"expected one of the graph's tensors, {names}; found {name!r}")
