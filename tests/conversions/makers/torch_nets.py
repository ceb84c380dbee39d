"""The networks that `torch_maker` trains a little: what an author has as `module:function`."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """Pictures of any height in, an embedding and scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.features(image).flatten(1)
        return {"embedding": found, "scores": self.head(self.dropout(found)).softmax(-1)}


class Tokens(nn.Module):
    """Token numbers and their mask in, one vector for each text out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found = self.layer(self.embedding(ids))
        weight = mask.unsqueeze(-1).float()
        pooled: torch.Tensor = (found * weight).sum(1) / weight.sum(1).clamp(min=1e-6)
        return pooled


class Restless(nn.Module):
    """Never answers twice the same: dropout that evaluation mode does not switch off."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Halving(nn.Module):
    """Halves until all is small: how often, the values decide."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        steps = torch.zeros(1, dtype=torch.int64)
        while bool(x.abs().max() > 1.0):
            x = x * 0.5
            steps = steps + 1
        return {"y": x, "steps": steps}


class Spectrum(nn.Module):
    """An operator that ONNX does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(x @ x.transpose(1, 2))


class Reader(nn.Module):
    """Looks into a file that is none of its business."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        read = torch.from_file(self.path, False, 4, dtype=torch.uint8)
        return {"y": x, "steps": read.sum().reshape(1)}


def make_net() -> Net:
    torch.manual_seed(0)
    return Net()


def make_tokens() -> Tokens:
    torch.manual_seed(1)
    return Tokens()


def make_restless() -> Restless:
    return Restless()
