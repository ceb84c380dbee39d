"""Talking to a framework: a child with its environment's Python, one JSON line each way.

The child gets no path into this program's packages, no GPU (answers must repeat), and no package
index: some converters would install what they miss by themselves. What it prints is kept in a log,
and the end of that log is told when it dies.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from superbrain.convert.environments import Environment
from superbrain.convert.errors import ConvertError, FrameworkFailed, SourceRefused
from superbrain.domain.manifest import GraphTensor

MAIN = Path(__file__).parent / "frameworks/main.py"
MODULES = {
    "torch": "torch_models",
    "tensorflow": "tensorflow_models",
    "paddle": "paddle_models",
    "sklearn": "sklearn_models",
    "onnx": "onnx_models",
}
_LOOK_EVERY_S = 1.0
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "POLYGRAPHY_AUTOINSTALL_DEPS": "0",
    "PIP_NO_INDEX": "1",
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "HF_HUB_OFFLINE": "1",
}
T = TypeVar("T")
Waiting = Callable[[float], None]


class Loaded(msgspec.Struct, frozen=True):
    """What a framework says of a model that it has loaded; `dynamic` are bounds that it knows."""

    inputs: list[GraphTensor]
    outputs: list[str]
    notes: list[str]
    versions: dict[str, str]
    dynamic: dict[str, list[int]] = {}


class Done(msgspec.Struct, frozen=True):
    """What an operation that gives nothing else says."""

    notes: list[str] = []
    outputs: list[str] = []


class _Wrong(msgspec.Struct, frozen=True):
    code: str
    message: str
    mend: str


class _Reply(msgspec.Struct, frozen=True):
    ok: msgspec.Raw = msgspec.Raw()
    error: _Wrong | None = None


class Conversation:
    """One framework's child; `with` ends it."""

    def __init__(self, environment: Environment, log: Path, waiting: Waiting) -> None:
        self._framework = environment.framework
        self._log = log
        self._waiting = waiting
        self._log_file = log.open("wb")
        self._child = subprocess.Popen(
            [str(environment.interpreter), "-I", str(MAIN), MODULES[environment.framework]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            env=os.environ | _ENVIRONMENT,
            cwd=log.parent,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # it may have died with an order unread
                    pipe.close()
        if kind is not None:
            self._child.kill()
        self._child.wait()
        self._log_file.close()

    def load(
        self,
        *,
        source: str,
        kind: str,
        inputs: Sequence[GraphTensor],
        weights: str,
        search: str,
        trusted: bool,
    ) -> Loaded:
        """Load a model; see the frameworks' `Order`."""
        order = {
            "do": "load",
            "source": source,
            "kind": kind,
            "inputs": list(inputs),
            "weights": weights,
            "search": search,
            "trusted": trusted,
        }
        return self._ask(order, Loaded)

    def answer(self, samples: Sequence[Path]) -> Done:
        """Have the original answer samples; see the frameworks' `read_inputs`."""
        return self._ask({"do": "answer", "samples": list(map(str, samples))}, Done)

    def export(self, path: Path, opset: int, dynamic: dict[str, list[int]]) -> Done:
        """Have the model written as ONNX."""
        order = {"do": "export", "path": str(path), "opset": opset, "dynamic": dynamic}
        return self._ask(order, Done)

    def native(self, path: Path, declaration: bytes) -> Done:
        """Have the model written in its framework's own form, with what is declared of it."""
        order: dict[str, object] = {
            "do": "native",
            "path": str(path),
            "declaration": declaration.decode(),
        }
        return self._ask(order, Done)

    def finish(
        self,
        source: Path,
        target: Path,
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
        simplify: bool,
    ) -> Done:
        """Have an ONNX file renamed, checked, simplified."""
        order = {
            "do": "finish",
            "source": str(source),
            "target": str(target),
            "inputs": list(inputs),
            "outputs": list(outputs),
            "simplify": simplify,
        }
        return self._ask(order, Done)

    def declare(
        self, path: Path, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]
    ) -> Done:
        """Have the sizes of inputs and outputs written into an ONNX file."""
        order: dict[str, object] = {
            "do": "declare",
            "path": str(path),
            "shapes": {one.name: one.shape for one in (*inputs, *outputs)},
        }
        return self._ask(order, Done)

    def _ask(self, order: dict[str, object], expected: type[T]) -> T:
        operation = str(order["do"])
        line = self._exchange(msgspec.json.encode(order) + b"\n", operation)
        reply = msgspec.json.decode(line, type=_Reply)
        if reply.error is not None:
            raise self._translated(reply.error, operation)
        return msgspec.json.decode(reply.ok, type=expected)

    def _exchange(self, order: bytes, operation: str) -> bytes:
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None  # noqa: S101 - both are pipes
        assert stdout is not None  # noqa: S101
        began = time.monotonic()
        try:
            stdin.write(order)
            stdin.flush()
        except BrokenPipeError:
            raise self._died(operation) from None
        while not select.select([stdout], [], [], _LOOK_EVERY_S)[0]:
            self._waiting(time.monotonic() - began)
        return stdout.readline() or self._raise_died(operation)

    def _raise_died(self, operation: str) -> bytes:
        raise self._died(operation)

    def _died(self, operation: str) -> FrameworkFailed:
        code = self._child.wait()
        self._log_file.flush()
        lines = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        return FrameworkFailed(
            f"{self._framework}: expected it to {operation} the model, found that its process "
            f"ended with status {code}: {' '.join(lines)[-500:] or 'it said nothing'}",
            code="FRAMEWORK_DIED",
        )

    def _translated(self, wrong: _Wrong, operation: str) -> ConvertError:
        code = wrong.code or f"FRAMEWORK_{operation.upper()}"
        if code == "PICKLE_NOT_TRUSTED":
            return pickle_refused(wrong.message)
        message = wrong.message if wrong.code else f"could not {operation}: {wrong.message}"
        return FrameworkFailed(f"{self._framework}: {message}", code=code, mend=wrong.mend)


def pickle_refused(what: str) -> SourceRefused:
    """The refusal to unpickle what nobody vouches for."""
    return SourceRefused(
        f"{what}: it is a pickle, and loading one runs whatever code is in it",
        code="PICKLE_NOT_TRUSTED",
        mend="If you made it or trust who did: --trust-pickle",
    )
