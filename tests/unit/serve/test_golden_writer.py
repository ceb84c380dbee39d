"""A part of a case is recorded whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from superbrain.bundle.tensors import Array, write_tensor
from superbrain.domain.errors import StoreError
from superbrain.domain.manifest import GraphTensor
from superbrain.serve.golden_writer import GoldenWriter

TENSORS = [GraphTensor("x", "FP32", [2]), GraphTensor("y", "FP32", [2])]
ARRAYS = {"x": np.zeros(2, np.float32), "y": np.ones(2, np.float32)}


def test_a_full_disk_is_told_and_half_a_part_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_until_full(folder: Path, tensor: GraphTensor, array: Array) -> Path:
        if tensor.name == "y":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_tensor(folder, tensor, array)

    monkeypatch.setattr("superbrain.serve.golden_writer.write_tensor", write_until_full)
    writer = GoldenWriter(tmp_path, "first")
    with pytest.raises(StoreError, match="No space left on device") as caught:
        writer.write("response", TENSORS, ARRAYS)
    assert caught.value.reason == "STORE_NO_SPACE"
    assert not (tmp_path / "golden" / "first" / "response").exists()
    monkeypatch.undo()
    assert len(writer.write("response", TENSORS, ARRAYS)) == 2
