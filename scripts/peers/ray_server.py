"""Ray Serve: one replica behind its HTTP proxy; bytes in, bytes out."""

import os
import signal

import ray
from bench_model import Model
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=64)
class Inference:
    """Holds the session in a replica."""

    def __init__(self) -> None:
        self.model = Model()

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        return Response(self.model.answer(await request.body()))


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
serve.run(Inference.bind(), route_prefix="/infer")
number = 0
while True:
    signal.sigwait({signal.SIGHUP})
    number += 1  # another demand for processors makes it a new replica, rolled out beside the old
    serve.run(
        Inference.options(ray_actor_options={"num_cpus": 1 - number / 100}).bind(),
        route_prefix="/infer",
    )
