"""FastAPI and uvicorn, with uvloop and httptools; bytes in, bytes out."""

import os

import uvicorn
from bench_model import Model
from fastapi import FastAPI, Request, Response

model = Model()
app = FastAPI()


@app.post("/infer")
async def infer(request: Request) -> Response:
    """Answer in the loop: a thread would only add to what a run of one thread takes."""
    return Response(model.answer(await request.body()), media_type="application/octet-stream")


uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
