"""LitServe; it takes JSON, so tensors travel as base64."""

import base64
import os

import litserve
from bench_model import Model


class Inference(litserve.LitAPI):
    """Holds the session in a process of its own."""

    def setup(self, _device: str) -> None:
        """Load."""
        self.model = Model()

    def decode_request(self, request: dict[str, str]) -> bytes:
        """Take the tensor out."""
        return base64.b64decode(request["x"])

    def predict(self, x: bytes) -> bytes:
        """Answer one request."""
        return self.model.answer(x)

    def encode_response(self, output: bytes) -> dict[str, str]:
        """Put the tensor in."""
        return {"y": base64.b64encode(output).decode()}


if __name__ == "__main__":
    server = litserve.LitServer(Inference(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        generate_client_file=False,
        log_level="warning",
    )
