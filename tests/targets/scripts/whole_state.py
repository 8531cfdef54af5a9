"""An ordinary training script: at each epoch's end a file with everything, and much that is no state beside it."""

import argparse
import copy
import csv
import os
import random
import time
from pathlib import Path

import numpy as np
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--workdir", type=Path, required=True)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--resume", type=Path)
args = parser.parse_args()

random.seed(3)
np.random.seed(3)
torch.manual_seed(3)
torch.set_num_threads(1)


class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        point = torch.randn(5, generator=torch.Generator().manual_seed(index))
        return point + random.gauss(0, 0.05), index % 3


loader = torch.utils.data.DataLoader(Points(), batch_size=5, shuffle=True)
model = torch.nn.Sequential(
    torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 3)
)
ema = copy.deepcopy(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
first, history, started = 0, [], time.time()

if args.resume is not None:
    saved = torch.load(args.resume, weights_only=False)
    model.load_state_dict(saved["model"])
    ema.load_state_dict(saved["ema"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    scaler.load_state_dict(saved["scaler"])
    random.setstate(saved["py_rng"])
    np.random.set_state(saved["np_rng"])
    torch.set_rng_state(saved["torch_rng"])
    first, history = saved["epoch"], saved["history"]

for epoch in range(first, args.epochs):
    for points, labels in loader:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(points), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
                mean.lerp_(now, 0.1)
    scheduler.step()
    history.append(loss.item())
    with (args.workdir / "progress.csv").open("a", newline="") as file:
        csv.writer(file).writerow([epoch, loss.item(), time.time() - started])
    state = {"epoch": epoch + 1, "args": args, "history": history, "written": time.ctime(), "by": os.getpid()}
    state |= {"model": model.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
    state |= {"scheduler": scheduler.state_dict(), "scaler": scaler.state_dict(), "seconds": time.time() - started}
    state |= {"py_rng": random.getstate(), "np_rng": np.random.get_state(), "torch_rng": torch.get_rng_state()}
    torch.save(state, args.workdir / f"epoch_{epoch + 1}.pth")
