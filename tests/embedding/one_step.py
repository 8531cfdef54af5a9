"""One step in double precision without dropout, in one process or, under torchrun, in several.

`python -m tests.embedding.one_step DIRECTORY OUTPUT OPTIONS` with options of the trainer as JSON; writes the loss and
the gradients, which data parallel training averages over the processes.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from resumecheck.embedding.processes import leave
from tests.embedding import targets


def main(directory: str, output: str, options: str) -> None:
    trainer = targets.build(Path(directory) / "out", directory=directory, **json.loads(options))
    trainer.model.double().eval()
    batch = next(iter(trainer.get_train_dataloader()))
    model = trainer.accelerator.prepare(trainer.model)
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    loss = loss.detach()
    if trainer.args.world_size > 1:
        dist.all_reduce(loss)
        loss /= trainer.args.world_size
    if trainer.args.process_index == 0:
        gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
        torch.save({"loss": loss, "world_size": trainer.args.world_size, "gradients": gradients}, output)
    leave(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
