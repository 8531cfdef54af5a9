"""An ordinary training script with Lightning, which saves at each epoch's end under names of its own."""

import argparse

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

parser = argparse.ArgumentParser()
parser.add_argument("--dir", required=True)
parser.add_argument("--ckpt")
options = parser.parse_args()


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        loss = (self.net(batch[0]) - batch[0].sum(1, keepdim=True)).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


pl.seed_everything(4)
torch.set_num_threads(1)
rows = torch.utils.data.TensorDataset(torch.randn(24, 5))
order = torch.utils.data.DistributedSampler(rows, num_replicas=1, rank=0)
loader = torch.utils.data.DataLoader(rows, batch_size=6, sampler=order, generator=torch.Generator())
saving = ModelCheckpoint(dirpath=options.dir, filename="at-{step}", every_n_epochs=1, save_top_k=-1)
logger = pl.loggers.CSVLogger(options.dir)
quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
trainer = pl.Trainer(max_epochs=3, callbacks=[saving], logger=logger, log_every_n_steps=1, **quiet)
trainer.fit(Module(), loader, ckpt_path=options.ckpt)
