"""The model that every peer serves: one ONNX Runtime session with the same settings for all."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime


class Model:
    """Bytes of the only input in, bytes of the only output out; `MODEL_PATH` says of what."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL_PATH"], options, providers=["CPUExecutionProvider"]
        )
        (one,) = self.session.get_inputs()
        self.name, self.shape = one.name, one.shape

    def answer(self, data: bytes) -> bytes:
        """Answer one request."""
        x = np.frombuffer(data, np.float32).reshape(self.shape)
        answer: bytes = self.session.run(None, {self.name: x})[0].tobytes()
        return answer
