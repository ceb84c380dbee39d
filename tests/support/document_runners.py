"""Who runs the blocks of commands in the documents: every one of them has somebody.

Three ways, and `runner` gives the file: a test types all `sh` blocks of a page in their order
(`PAGES`); the acceptance types a block on a real host (its calls of `types`); or something else
runs the same commands for its own sake (`OTHERWISE`), and has a word in it by which that is seen.
`BY_HAND` is what a developer of the C does, on a page that is for nobody else.
"""

from __future__ import annotations

import ast
from typing import NamedTuple

from tests.support.documents import ROOT, SHELL, Block, commands

ACCEPTANCE = tuple(f"scripts/{name}" for name in ("acceptance_story.py", "acceptance_documents.py"))
_OPERATIONS = "tests/integration/test_operations_document.py"
_README = "tests/integration/test_readme_document.py"
PAGES = {
    "README.md": _README,
    "README.zh-CN.md": _README,  # the same blocks, which a unit test sees to
    "docs/bundle-format.md": _README,
    "docs/trust.md": "tests/integration/test_trust_document.py",
    **{
        f"docs/{name}.md": _OPERATIONS
        for name in ("access", "backup", "install", "log-events", "operations", "troubleshooting")
    },
    "docs/from-onnx.md": "tests/integration/test_convert.py",
    "docs/from-paddle.md": "tests/conversions/test_paddle.py",
    "docs/from-pytorch.md": "tests/conversions/test_torch.py",
    "docs/from-scikit-learn.md": "tests/conversions/test_sklearn.py",
    "docs/from-tensorflow.md": "tests/conversions/test_tensorflow.py",
}


class Runner(NamedTuple):
    """A file that runs the same commands, and a word in it that says so."""

    path: str
    word: str


_CI = Runner(".ci/run", "scripts/demo --quick")
_PRECISION = Runner("tests/integration/test_bundle_precision.py", '"bundle", "precision"')
_TEMPLATES = Runner("tests/integration/test_templates.py", '"bundle", "init"')
_TORCH = Runner("tests/conversions/test_torch.py", "--native")
_CONVERT = "docs/convert.md"
# By page and the beginning of the block.
OTHERWISE = {
    ("README.md", "./scripts/demo"): _CI,
    ("README.zh-CN.md", "./scripts/demo"): _CI,
    ("bundles/README.md", "python bundles/fetch.py"): Runner(
        "tests/integration/test_sample_bundles.py", '"python bundles/fetch.py"'
    ),
    ("bundles/README.md", "superbrain key generate author"): Runner(
        "tests/integration/test_sample_bundles.py", "superbrain bundle build bundles/"
    ),
    ("docs/bundle-format.md", "sudo superbrain bundle engines"): Runner(
        "tests/unit/cli/test_author_engines.py", '"bundle", "engines", source, "--from"'
    ),
    (_CONVERT, "superbrain convert --setup sklearn"): Runner("scripts/conversions", "--setup"),
    (_CONVERT, "superbrain convert net.keras --samples"): Runner(
        "tests/conversions/test_tensorflow.py", "from-tensorflow.md"
    ),
    (_CONVERT, "superbrain convert script.pt --native"): _TORCH,
    (_CONVERT, "superbrain convert wine.joblib --trust-pickle --samples rows.npy --dyn"): Runner(
        "tests/conversions/test_sklearn.py", "from-scikit-learn.md"
    ),
    (_CONVERT, "superbrain convert people.joblib"): Runner(
        "tests/conversions/test_sklearn.py", "town=string"
    ),
    (_CONVERT, "superbrain convert nets:make_net"): Runner(
        "tests/conversions/test_torch.py", "nets:make_net"
    ),
    (_CONVERT, "superbrain convert net.keras --output"): Runner(
        "tests/conversions/test_tensorflow.py", "frozen.pb"
    ),
    (_CONVERT, "superbrain convert inference/"): Runner(
        "tests/conversions/test_paddle.py", "--outputs"
    ),
    (_CONVERT, "superbrain convert old.onnx"): Runner("tests/conversions/test_onnx.py", "old.onnx"),
    ("docs/from-pytorch.md", "superbrain convert script.pt --native"): _TORCH,
    ("docs/gpu.md", "git clone REPOSITORY"): Runner(
        "tests/integration/test_gpu_check.py", "scripts/gpu-check"
    ),
    ("docs/rungs.md", "superbrain bundle precision FOLDER  "): _PRECISION,
    ("docs/rungs.md", "pip install nvidia-modelopt"): _PRECISION,
    ("docs/templates.md", "superbrain bundle init resnet50.onnx"): _TEMPLATES,
    ("docs/templates.md", "superbrain bundle init yolo11n.onnx"): _TEMPLATES,
    ("docs/templates.md", "superbrain bundle init --template ocr"): _TEMPLATES,
}
# What people run who change superbrain, by hand: on no page for operators or authors.
BY_HAND = {
    ("docs/performance.md", "cc -std=c11"): "changed C with a sanitizer: it replaces the extension"
}


def runner(block: Block) -> str:
    """Which file runs a block, or why a person does; empty when nobody does."""
    page = str(block.document.relative_to(ROOT))
    for (other, beginning), reason in BY_HAND.items():
        if other == page and block.text.startswith(beginning):
            return reason
    for (other, beginning), one in OTHERWISE.items():
        if other == page and block.text.startswith(beginning):
            return one.path
    if typed_by_acceptance(block):
        return ACCEPTANCE[1]
    return PAGES.get(page, "") if block.language == "sh" else ""


# --- as scripts/acceptance runs them --------------------------------------------------------------


def blocks_of_acceptance() -> list[tuple[str, str]]:
    """What the acceptance types: a page, and the beginning of a block."""
    calls = [tuple(map(_constant, call.args)) for call in _calls("types")]
    return [(f"docs/{page}", beginning) for page, beginning in calls]


def typed_by_acceptance(block: Block) -> bool:
    """Whether the acceptance types a block as it is written."""
    page = str(block.document.relative_to(ROOT))
    return any(
        page == other and block.language in SHELL and block.text.startswith(beginning)
        for other, beginning in blocks_of_acceptance()
    )


def run_by_acceptance() -> list[tuple[str, ...]]:
    """Collect the commands that the acceptance runs itself, as far as they are constant."""
    script = (ROOT / "scripts" / "acceptance").read_text()
    makes = [line for line in script.splitlines() if " scripts/wheelhouse " in line]
    return [
        *(tuple(map(_constant, call.args)) for call in _calls("run")),
        *(tuple(words) for line in makes for words in commands(line)),
    ]


def _calls(name: str) -> list[ast.Call]:
    """Find every call of a method of this name; constants of a module stand for their values."""
    found = []
    for path in ACCEPTANCE:
        tree = ast.parse((ROOT / path).read_text())
        values = {
            node.target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
        }
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr == name:
                call.args = [
                    values.get(one.id, one) if isinstance(one, ast.Name) else one
                    for one in call.args
                ]
                found.append(call)
    return found


def _constant(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "…"
