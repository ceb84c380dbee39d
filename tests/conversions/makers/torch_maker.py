"""Small PyTorch models in every form that can be converted, with their own answers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from talk import keep

SIZES = ((1, 8), (3, 21), (16, 48))


def main(folder: Path) -> None:
    shutil.copy(Path(__file__).with_name("torch_nets.py"), folder / "nets.py")
    import torch_nets as nets

    net = nets.make_net()
    trained = nets.make_net()
    torch.manual_seed(7)
    for parameter in trained.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, folder / "net.ckpt")
    torch.save(trained.state_dict(), folder / "net.pth")
    save_file(trained.state_dict(), folder / "net.safetensors")
    trained.eval()
    batch, height = torch.export.Dim("batch", min=1, max=16), torch.export.Dim("h", min=8, max=48)
    exported = torch.export.export(
        trained, (torch.randn(2, 3, 24, 24),), dynamic_shapes=({0: batch, 2: height},)
    )
    torch.export.save(exported, folder / "net.pt2")
    torch.jit.script(trained).save(folder / "script.pt")
    for number, (count, size) in enumerate(SIZES):
        image = torch.rand(count, 3, size, 24)
        with torch.no_grad():
            answer = trained(image)
        keep(folder, number, {"image": image.numpy()}, {k: v.numpy() for k, v in answer.items()})
    assert not np.allclose(net.head.weight.detach(), trained.head.weight.detach())
    tokens(folder / "tokens", nets.make_tokens().eval())


def tokens(folder: Path, net: torch.nn.Module) -> None:
    """Two inputs of whole numbers, two dynamic sizes, one output."""
    for number, (count, length) in enumerate(((1, 1), (2, 9), (4, 32))):
        ids = torch.randint(0, 100, (count, length))
        mask = torch.ones(count, length, dtype=torch.int64)
        with torch.no_grad():
            answer = net(ids, mask)
        given = {"ids": ids.numpy(), "mask": mask.numpy()}
        keep(folder, number, given, {"vector": answer.numpy()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
