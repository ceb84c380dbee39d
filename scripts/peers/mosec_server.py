"""mosec: a Rust front, a Python worker; bytes in, bytes out. Its options come by environment."""

from bench_model import Model
from mosec import Server, Worker


class Inference(Worker):
    """Holds the session in a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def deserialize(self, data: bytes) -> bytes:
        """Pass the request on as it is."""
        return data

    def forward(self, data: bytes) -> bytes:
        """Answer one request."""
        return self.model.answer(data)

    def serialize(self, data: bytes) -> bytes:
        """Pass the answer on as it is."""
        return data


if __name__ == "__main__":
    server = Server()
    server.append_worker(Inference)
    server.run()
