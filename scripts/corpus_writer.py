"""`scripts/corpus`: the bad bundles of tests/corpus as files, and what a host says to them."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.corpus.draft import Draft
from tests.corpus.dropping import drop_all, model_of
from tests.corpus.every_case import CASES
from tests.support.appliance import Appliance
from tests.support.bundles import make_trust_folder, sign_key

README = """\
# Bad bundles

{count} bundles that a host must refuse, each for a reason of its own. `index.json` says of each
what is wrong with it (`note`), which reason codes are right (`codes`) and a piece of what
superbrain says (`says`). `trust/` is a trust folder that makes their signatures count; the key was
made for this folder and is thrown away. Some contain code that ends, crashes or never returns: try
them where that does no harm.
"""


def main(arguments: list[str]) -> int:
    """Write the corpus; run it if asked to."""
    parser = argparse.ArgumentParser(prog="scripts/corpus")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--run", action="store_true", help="show what an appliance says to each")
    options = parser.parse_args(arguments)
    write(options.folder)
    print(f"{len(CASES)} bad bundles are in {options.folder}; index.json tells what each is")
    return show() if options.run else 0


def write(target: Path) -> None:
    """Write every case, the trust folder and the index."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        author = sign_key(Path(work) / "author")
        stranger = sign_key(Path(work) / "stranger", "stranger").signing
        make_trust_folder(target / "trust", author)
        index = []
        for case in CASES.values():
            draft = Draft(Path(work), author.signing, stranger, model_of(case))
            case.bend(draft)
            (target / f"{case.name}.sbb").write_bytes(draft.pack())
            told = {"file": f"{case.name}.sbb", "section": case.section, "note": case.note}
            index.append({**told, "codes": sorted(case.codes), "says": case.says})
    (target / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    (target / "README.md").write_text(README.format(count=len(CASES)))


def show() -> int:
    """Drop every case into an appliance; print case, reason code and message."""
    wrong = 0
    with tempfile.TemporaryDirectory() as work, Appliance(Path(work)) as appliance:
        notes = drop_all(appliance, Path(work))
    for case in CASES.values():
        said = " ".join(notes[case.name].split())
        code = said.partition("(")[2].partition(")")[0]
        right = code in case.codes and case.says in said
        wrong += not right
        message = said.partition("). ")[2]
        print(f"{case.name:<44}{code:<24}{'' if right else 'WRONG '}{message[:160]}")
    print(f"{len(CASES)} cases, {wrong} not refused for their own reason")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
