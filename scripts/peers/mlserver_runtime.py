"""MLServer with a runtime of its own; tensors travel as base64 in the V2 protocol's JSON."""

import base64

from bench_model import Model
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Inference(MLModel):
    """Holds the session in the server's process."""

    async def load(self) -> bool:
        """Load."""
        self.model_session = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        data = payload.inputs[0].data.root
        encoded = data[0] if isinstance(data, list) else data
        answer = base64.b64encode(self.model_session.answer(base64.b64decode(encoded))).decode()
        output = ResponseOutput(name="y", shape=[1], datatype="BYTES", data=[answer])
        return InferenceResponse(model_name=self.name, outputs=[output])
