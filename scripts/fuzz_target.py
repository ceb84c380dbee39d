"""One target under atheris, in .venv-fuzz: `python -m scripts.fuzz_target NAME OPTIONS`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["superbrain"]):
    from tests.support.fuzz_targets import TARGETS


def main() -> None:
    """Hand every input to the target; libFuzzer ends the process."""
    name = sys.argv.pop(1)
    target = TARGETS[name]
    target.seeds()  # what it prepares once must not count as an input's time
    atheris.Setup(sys.argv, target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
