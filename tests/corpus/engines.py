"""Engines that a bundle brings along: entries that lie, or say too little, and damaged files.

What an entry says of GPU and version, and what a rightly signed file really holds, only a host with
a GPU can find out; tests/fault/test_carried_engines.py has these cases.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from superbrain.domain.engine import EngineHost, engine_key
from superbrain.domain.manifest import Manifest
from tests.corpus.cases import case, enter
from tests.corpus.draft import Draft, Json, Member
from tests.corpus.executions import GRAPH, model

SECTION = "engines"
RUNG = "tensorrt-rtx:fp32"
PATH = "engines/one/engine"
HOST = EngineHost("tensorrt-rtx", "1.7.1.116", "NVIDIA L4", "8.9")


def bring(draft: Draft, **changes: Any) -> Json:  # noqa: ANN401 - parts of a key
    """Put an engine into a draft; its entry, right but for the changes."""
    draft.manifest["ladder"] = [RUNG, "onnxruntime:cpu"]
    draft.add(PATH, b"an engine of the graph, as far as anybody can see")
    manifest = msgspec.json.decode(json.dumps(draft.manifest), type=Manifest)
    key = engine_key(manifest, manifest.graphs["main"], RUNG, HOST, ["STRONGLY_TYPED"], 1024)
    entry = {"graph": "main", "path": PATH, "key": msgspec.to_builtins(key) | changes}
    draft.manifest["engines"] = [entry]
    return entry


def lie(name: str, codes: str, says: str, note: str, **changes: Any) -> None:  # noqa: ANN401
    """Enter a case whose entry has another key."""

    def bend(draft: Draft) -> None:
        bring(draft, **changes)

    enter(SECTION, name, codes, says, note, bend)


E = "MANIFEST_ENGINE"
lie("engine-of-another-graph", E, "as it is in this bundle", "Of some graph.", graph="0" * 64)
lie("engine-of-no-graph", E, "found one of ''", "It does not say of which.", graph="")
lie(
    "engine-for-other-bounds",
    E,
    "for the bounds of graph 'main'",
    "Built for images of another size.",
    profiles=[{"name": "x", "min": [1, 5], "opt": [1, 5], "max": [8, 5]}],
)
lie(
    "engine-of-another-rung",
    E,
    "expected an engine of a rung of the ladder",
    "In int8, which the author has not allowed.",
    precision="int8",
)
lie("engine-for-nobody", E, "expected key.gpu", "For no GPU at all.", gpu="")
lie("engine-of-no-version", E, "expected key.version", "Of any version.", version="")
lie("engine-workspace-of-less-than-none", E, "workspace_mib", "-1 MiB.", workspace_mib=-1)
lie("engine-flags-without-end", E, "at most 64 flags", "A thousand.", flags=["TF32"] * 1000)
lie("engine-gpu-writes-on-terminals", "MANIFEST_TEXT", "control", "An escape.", gpu="\x1b[2J")
lie("engine-key-of-words", "MANIFEST_TYPE", "workspace_mib", "A size in words.", workspace_mib="1k")
lie("engine-key-knows-more", "MANIFEST_UNKNOWN_FIELD", "color", "One part more.", color="red")


@case(SECTION, "MANIFEST_TYPE", "gpu")
def engine_key_lacks_a_part(draft: Draft) -> None:
    """One that would fit any GPU, if missing parts were anything."""
    del bring(draft)["key"]["gpu"]


@case(SECTION, E, "as it is in this bundle")
def engine_of_a_graph_that_was_changed(draft: Draft) -> None:
    """The graph was replaced after the engine had been built."""
    bring(draft)
    draft.replace(GRAPH, model("Neg"))


@case(SECTION, E, "expected graph to be one of the bundle")
def engine_of_an_unknown_graph(draft: Draft) -> None:
    """A name that no graph has."""
    bring(draft)["graph"] = "other"


@case(SECTION, E, "expected every engine once")
def engine_twice(draft: Draft) -> None:
    """The same engine under two entries."""
    draft.manifest["engines"] = [bring(draft)] * 2


@case(SECTION, E, "expected an entry for every file under engines/")
def engine_without_an_entry(draft: Draft) -> None:
    """A file that nobody says anything of."""
    bring(draft)
    draft.manifest["engines"] = []


@case(SECTION, "MANIFEST_FILE_MISSING", "expected path to name a listed file under engines/")
def engine_that_is_not_there(draft: Draft) -> None:
    """An entry for a file that the bundle does not have."""
    bring(draft)["path"] = "engines/two/engine"


@case(SECTION, "MANIFEST_FILE_MISSING", "expected path to name a listed file under engines/")
def engine_that_is_a_golden(draft: Draft) -> None:
    """An entry that points at a golden file."""
    bring(draft)["path"] = "golden/one/request/x.npy"


@case(SECTION, "ARCHIVE_HASH", PATH)
def engine_changed_after_it_was_signed(draft: Draft) -> None:
    """One bit of the engine."""
    bring(draft)
    draft.members = _bent


@case(SECTION, "ARCHIVE_SIZE", PATH)
def engine_cut_short(draft: Draft) -> None:
    """Half of what is listed, though the archive is whole."""
    bring(draft)
    for entry in draft.manifest["files"]:
        if entry["path"] == PATH:
            entry["size_bytes"] += 1


def _bent(found: list[Member]) -> list[Member]:
    (engine,) = (member for member in found if member.path == PATH)
    engine.data = engine.data[:-1] + bytes((engine.data[-1] ^ 1,))
    return found
