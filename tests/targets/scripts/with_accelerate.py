"""An ordinary training script with accelerate, which saves and loads; it logs lines of JSON."""

import argparse
import json
from pathlib import Path

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import set_seed

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--resume_from_checkpoint", type=Path)
options = parser.parse_args()

set_seed(1)
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
rows = torch.utils.data.TensorDataset(torch.randn(32, 5), torch.arange(32) % 3)
order = torch.Generator()
loader = torch.utils.data.DataLoader(rows, batch_size=4, shuffle=True, generator=order)
model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
step = 0
if options.resume_from_checkpoint is not None:
    accelerator.load_state(str(options.resume_from_checkpoint))
    step = json.loads((options.resume_from_checkpoint / "progress.json").read_text())["step"]

for epoch in range(step // 4, 3):
    passed = 2 * step - 8 * epoch
    batches = skip_first_batches(loader, passed) if passed else loader
    order.manual_seed(epoch)
    for points, labels in batches:
        with accelerator.accumulate(model):
            loss = torch.nn.functional.cross_entropy(model(points), labels)
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            step += 1
            with (options.out / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
            if step % 2 == 0:
                directory = options.out / f"checkpoint-{step}"
                accelerator.save_state(str(directory))
                (directory / "progress.json").write_text(json.dumps({"step": step, "epoch": epoch}))
