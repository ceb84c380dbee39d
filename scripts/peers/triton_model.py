"""Triton's Python backend around the same session; tensors travel in the binary extension."""

import os
import sys

sys.path += os.environ["PEER_PATH"].split(":")  # the stub does not look at PYTHONPATH

import numpy as np
import triton_python_backend_utils as utils
from bench_model import Model


class TritonPythonModel:
    """Holds the session in the backend's stub process."""

    def initialize(self, _args: dict) -> None:
        """Load."""
        self.model = Model()

    def execute(self, requests: list) -> list:
        """Answer requests."""
        responses = []
        for request in requests:
            x = utils.get_input_tensor_by_name(request, "x").as_numpy()
            (y,) = self.model.session.run(None, {self.model.name: x.reshape(self.model.shape)})
            responses.append(utils.InferenceResponse([utils.Tensor("y", np.ravel(y))]))
        return responses
