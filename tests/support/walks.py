"""The walks from a framework to an answer (docs/from-*.md), typed as they are written.

A walk's programs are saved under their names, `python` is a Python that has the framework, and what
an installed host has lies where an appliance under test has it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.support.appliance import Appliance
from tests.support.documents import ROOT, Typist, installed_places, shell_blocks, write_programs

_DROPPED = re.compile(r"(\S+)-0\.1\.0\.sbb")
PATIENCE_S = 900.0


def walk(folder: Path, page: str, python: str, environments: Path, appliance: Appliance) -> str:
    """Type a whole page; what it printed.

    Args:
        folder: an empty one, to type it in.
        page: of docs/.
        python: what is started as `python`.
        environments: where `superbrain convert` finds the framework's.
        appliance: the host.
    """
    document = ROOT / "docs" / page
    write_programs(document, folder)
    shutil.copy(appliance.author.private, folder / "author.key")
    typist = Typist(
        folder,
        installed_places(appliance.root),
        {
            "SUPERBRAIN_CONTROL": appliance.control_endpoint,
            "SUPERBRAIN_ENDPOINT": appliance.endpoint,
            "SUPERBRAIN_ENVIRONMENTS": str(environments),
        },
        PATIENCE_S,
    )
    typist.program("python", f'exec "{python}" "$@"')
    after = {}
    for block in shell_blocks(document):
        for line in block.text.splitlines():
            if line.startswith("cp "):
                names = _DROPPED.findall(line)
                after[f"^{re.escape(line)}"] = "\n".join(f"wait-live {one} 0.1.0" for one in names)
    assert after, f"{page}: expected that a bundle is dropped"
    return typist.type(document, after=after).stdout
