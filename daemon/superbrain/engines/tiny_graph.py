"""The smallest graph that proves that a provider computes: y = x + x, written by hand.

ONNX files are protocol buffers; these few fields need no library to write them. The numbers are
those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from typing import Final

LENGTH: Final = 3  # of x and y
_FLOAT: Final = 1
_IR_VERSION: Final = 8
_OPSET: Final = 13


def tiny_graph() -> bytes:
    """Give the file's content: x and y are float32 [3]."""
    node = _text(1, "x") + _text(1, "x") + _text(2, "y") + _text(4, "Add")
    graph = _part(1, node) + _text(2, "tiny") + _part(11, _tensor("x")) + _part(12, _tensor("y"))
    return _number(1, _IR_VERSION) + _part(7, graph) + _part(8, _number(2, _OPSET))


def _tensor(name: str) -> bytes:
    shape = _part(1, _number(1, LENGTH))
    tensor = _number(1, _FLOAT) + _part(2, shape)
    return _text(1, name) + _part(2, _part(1, tensor))


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3, value])


def _text(field: int, text: str) -> bytes:
    return _part(field, text.encode())


def _part(field: int, content: bytes) -> bytes:
    """Write a field with a length, all of which are below 128 here."""
    return bytes([field << 3 | 2, len(content)]) + content
