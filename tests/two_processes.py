"""One of several processes that train TMCA on a share of a batch, gradients averaged as DDP does.

python two_processes.py RANK WORLD PORT OUT
"""

from __future__ import annotations

import os
import sys

import torch.distributed as dist
from safetensors.torch import save_file

from tmca_batch import make_batch, trained_model


def main(rank: int, world: int, port: str, out: str) -> None:
    """Writes losses, averaged gradients and the table after two steps."""
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
        dist.init_process_group("gloo", rank=rank, world_size=world)
    model = trained_model()
    image, texts, mask = make_batch()
    share = slice(rank * len(texts) // world, (rank + 1) * len(texts) // world)
    for _ in range(2):
        model.zero_grad()
        losses = model(image[share], texts[share], mask[share]).losses
        sum(losses.values()).backward()
    found = {f"grad/{name}": p.grad.clone() for name, p in model.named_parameters()}
    found |= {f"loss/{name}": value.detach().clone() for name, value in losses.items()}
    if world > 1:
        for value in found.values():
            dist.all_reduce(value)
            value /= world
    found |= {f"table/{name}": value.clone() for name, value in model.alignment.named_buffers()}
    if rank == 0:
        save_file(found, out)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
    # Gloo's threads may outlive the group and hold tensors; one that lets go of its tensor while the interpreter
    # is being taken down aborts the process (seen in one run of 16 on a busy machine). All results are written.
    os._exit(0)
