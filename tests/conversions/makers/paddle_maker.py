"""A small Paddle model as an inference folder, with its own answers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from talk import keep

SIZES = ((1, 8), (3, 21), (16, 48))


class Net(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2D(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2D(8)
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.head = nn.Linear(8, 4)

    def forward(self, image: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        found = nn.functional.relu(self.norm(self.convolution(image)))
        pooled = self.pool(found).flatten(1)
        return nn.functional.softmax(self.head(pooled)), pooled


def main(folder: Path) -> None:
    paddle.seed(0)
    net = Net()
    net.eval()
    spec = paddle.static.InputSpec([None, 3, None, 24], "float32", "image")
    paddle.jit.save(
        paddle.jit.to_static(net, input_spec=[spec], full_graph=True), str(folder / "net/inference")
    )
    random = np.random.default_rng(0)
    for number, (count, height) in enumerate(SIZES):
        given = random.random((count, 3, height, 24), np.float32)
        answer = [one.numpy() for one in net(paddle.to_tensor(given))]
        keep(folder, number, {"image": given}, {"scores": answer[0], "pooled": answer[1]})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
