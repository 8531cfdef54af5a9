"""An ordinary training script that writes a folder for each save: safetensors, an optimizer's file, and JSON."""

import argparse
import json
import os
import random
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--resume", action="store_true", help="go on from the latest")
options = parser.parse_args()
torch.manual_seed(2)
torch.set_num_threads(1)
random.seed(2)

data = torch.randn(40, 6)
model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
step, best = 0, None
latest = os.path.join(options.out, "latest")
if options.resume:
    folder = Path(latest).read_text()
    model.load_state_dict(load_file(os.path.join(folder, "weights.safetensors")))
    optimizer.load_state_dict(torch.load(os.path.join(folder, "opt.pt")))
    facts = json.loads(Path(folder, "facts.json").read_text())
    step, best = facts["step"], facts["best"]
    random.setstate((facts["random"][0], tuple(facts["random"][1]), facts["random"][2]))
    torch.set_rng_state(torch.load(os.path.join(folder, "torch_rng.pt")))

while step < 10:
    for group in optimizer.param_groups:
        group["lr"] = 0.05 * 0.9**step
    batch = data[random.sample(range(40), 8)]
    loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    best = min(best, loss.item()) if best is not None else loss.item()
    if step % 5 == 0:
        folder = os.path.join(options.out, f"step{step:03d}")
        os.makedirs(folder, exist_ok=True)
        save_file(model.state_dict(), os.path.join(folder, "weights.safetensors"))
        torch.save(optimizer.state_dict(), os.path.join(folder, "opt.pt"))
        torch.save(torch.get_rng_state(), os.path.join(folder, "torch_rng.pt"))
        facts = {"step": step, "best": best, "random": random.getstate(), "at": time.time(), "out": folder}
        Path(folder, "facts.json").write_text(json.dumps(facts))
        Path(latest).write_text(folder)
