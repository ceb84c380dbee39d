"""A REP socket in a loop: the least that a home-made server is."""

import os

import zmq
from bench_model import Model

model = Model()
with zmq.Context() as context, context.socket(zmq.REP) as socket:
    socket.bind(f"tcp://127.0.0.1:{os.environ['PORT']}")
    while True:
        socket.send(model.answer(socket.recv(copy=False).buffer))
