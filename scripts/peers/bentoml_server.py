"""BentoML; it takes JSON, so tensors travel as base64."""

import base64

import bentoml
from bench_model import Model


@bentoml.service(workers=1, traffic={"timeout": 60})
class Inference:
    """Holds the session in a process of its own."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(route="/infer")
    def infer(self, x: str) -> str:
        """Answer one request."""
        return base64.b64encode(self.model.answer(base64.b64decode(x))).decode()
