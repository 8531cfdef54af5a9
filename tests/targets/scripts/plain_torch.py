"""An ordinary training script: a plain loop that saves a file every two steps, logs, and can be resumed from a file."""

import argparse
import json
from pathlib import Path

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--resume", type=Path)
options = parser.parse_args()

torch.manual_seed(1)
torch.set_num_threads(1)
rows = torch.utils.data.TensorDataset(torch.randn(24, 5), torch.arange(24) % 3)
order = torch.Generator()
loader = torch.utils.data.DataLoader(rows, batch_size=4, shuffle=True, generator=order)
model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
step = 0

if options.resume is not None:
    state = torch.load(options.resume)
    step = state["step"]
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["rng"])

log = (options.out / "log.jsonl").open("a")
for epoch in range(step // 6, 2):
    order.manual_seed(epoch)
    for number, (points, labels) in enumerate(loader, start=epoch * 6):
        if number < step:
            continue
        loss = torch.nn.functional.cross_entropy(model(points), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
        print(json.dumps({"step": step, "loss": loss.item()}), file=log, flush=True)
        if step % 2 == 0:
            state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"scheduler": scheduler.state_dict(), "rng": torch.get_rng_state()}
            torch.save(state, options.out / f"state-{step}.pt")
