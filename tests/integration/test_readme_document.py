"""README.md and docs/bundle-format.md: every command, from a bare model to a rollback, as typed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.bundles import save_graph
from tests.support.documents import ROOT, Typist, typed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, for the sockets in it, with a model and a request."""
    folder = Path(tempfile.mkdtemp(prefix="sb-"))
    save_graph(folder / "model.onnx", "add", 1.0)
    np.save(folder / "x.npy", np.zeros((1, 4), np.float32))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


NEXT = (
    "sed -i 's/^version = .*/version = \"0.2.0\"/; s/^sequence = .*/sequence = 2/' "
    "model/bundle.toml && superbrain bundle build model --key author.key "
    "&& cp model-0.2.0.sbb host/inbox/ && wait-live model 0.2.0"
)


def test_every_command_of_the_readme_does_what_it_says(folder: Path) -> None:
    typist = Typist(folder, {}, {"SUPERBRAIN__DEPLOY__PROBATION_S": "0.2"})
    done = typist.type(
        ROOT / "README.md",
        before={
            r"^superbraind ": "trap 'kill %1; wait' EXIT",
            r"^superbrain rollback": NEXT,
        },
        after={
            r"^cp model-0.1.0.sbb": "wait-live model 0.1.0",
            r"^superbrain rollback": "wait-live model 0.1.0",
        },
        instead={"^superbrain health[^#]*": r"\g<0> || [[ $? = 1 ]] "},  # it was rolled back
        without={"Two commands": "the demo and all tests are run by themselves"},
    )
    assert "model 0.1.0 serves again instead of 0.2.0" in done.stdout
    assert "models=1 ready=1" in done.stdout
    # docs/bundle-format.md begins with the same commands, and three more
    rest = commands_of("docs/bundle-format.md") - commands_of("README.md")
    assert rest == {
        "superbrain bundle engines model",
        "superbrain bundle precision model",
        "superbrain bundle verify model-0.1.0.sbb --key author.pub",
    }
    typist.run("\n".join(sorted(rest)))


def commands_of(document: str) -> set[str]:
    """The commands of a page's blocks that are typed, without what is said beside them."""
    return {" ".join(words) for block, words in typed(ROOT / document) if block.language == "sh"}
