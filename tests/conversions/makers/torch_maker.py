"""Small PyTorch models in every form that can be converted, with their own answers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType

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
    tokens(folder, nets)
    scripts(folder, nets)


def tokens(folder: Path, nets: ModuleType) -> None:
    """Two inputs of whole numbers, two dynamic sizes, one output."""
    torch.manual_seed(3)
    net = nets.make_tokens()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "tokens.ckpt")
    net.eval()
    for number, (count, length) in enumerate(((1, 1), (2, 9), (4, 32))):
        ids = torch.randint(0, 100, (count, length))
        mask = torch.ones(count, length, dtype=torch.int64)
        with torch.no_grad():
            answer = net(ids, mask)
        given = {"ids": ids.numpy(), "mask": mask.numpy()}
        keep(folder / "tokens", number, given, {"vector": answer.numpy()})


def scripts(folder: Path, nets: ModuleType) -> None:
    """TorchScript that ONNX cannot say, or that a host must not obey."""
    halving = torch.jit.script(nets.Halving().eval())
    halving.save(folder / "halving.pt")
    torch.jit.script(nets.Spectrum().eval()).save(folder / "spectrum.pt")
    secret = folder / "secret"
    secret.write_bytes(b"keys")
    torch.jit.script(nets.Reader(str(secret)).eval()).save(folder / "reader.pt")
    sizes = 2.0 ** (torch.arange(64) * 5 % 7)  # real samples differ: so does how often it halves
    np.save(folder / "vectors.npy", (torch.randn(64, 4) * sizes[:, None]).numpy())
    for number, count in enumerate((1, 3, 16)):
        x = torch.randn(count, 4) * 2.0**number
        answer = halving(x)
        keep(
            folder / "halving", number, {"x": x.numpy()}, {k: v.numpy() for k, v in answer.items()}
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
