"""Lightning runs: one that loses nothing, the ways in which one loses state over a resume, and their twins."""

import hashlib
import random

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

ROWS, BATCH = 28, 4


class Points(Dataset):
    """Rows whose content is a pure function of the index."""

    def __len__(self):
        return ROWS

    def __getitem__(self, index):
        return torch.randn(6, generator=torch.Generator().manual_seed(index)), index % 3


class Loader:
    """A loader that knows its place: the order is a function of the epoch, and it goes on behind the last batch.

    Lightning gives a sampler the number of the epoch, and saves the state of a loader that has one.
    """

    def __init__(self, dataset=None, workers=0):
        self.dataset = dataset or Points()
        self.workers = workers
        self.epoch = self.given = 0
        self.sampler = self

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.dataset) // BATCH

    def batches(self):
        order = torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]

    def __iter__(self):
        own = torch.Generator()  # else the seed of the workers is drawn from torch's stream, once more in a resumed run
        left = self.batches()[self.given :]
        for batch in DataLoader(self.dataset, batch_sampler=left, num_workers=self.workers, generator=own):
            self.given += 1
            if self.given == len(self):
                self.ends()
            yield batch

    def ends(self):
        self.given = 0

    def state_dict(self):
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state):
        self.epoch, self.given = state["epoch"], state["given"]


class CountsEpochs(Loader):
    """Counts its epochs by itself, and saves the count."""

    def set_epoch(self, epoch):
        pass

    def ends(self):
        self.epoch, self.given = self.epoch + 1, 0


class Streams(Callback):
    """Saves torch's random stream, which Lightning does not, and puts it back when all else is there."""

    def __init__(self):
        self.loaded = None

    def state_dict(self):
        return {"torch": torch.get_rng_state()}

    def load_state_dict(self, state):
        self.loaded = state["torch"]

    def on_train_start(self, trainer, pl_module):
        if self.loaded is not None:
            torch.set_rng_state(self.loaded)


class Warmth(Callback):
    """Scales the gradients by what it has counted, and saves the count."""

    def __init__(self):
        self.count = 0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.count += 1
        for parameter in pl_module.parameters():
            parameter.grad.mul_(1 / (1 + 0.1 * self.count))

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class Forgetful(Warmth):
    def state_dict(self):
        return {}


class ScalesByMean(Callback):
    """Sets the scale of the loss at an epoch's end by the mean loss of the epoch, as Lightning has logged it."""

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.scale = float(trainer.callback_metrics["train_loss"])


class Classifier(pl.LightningModule):
    """Weights, a buffer that training changes, dropout, and a schedule that moves at each step."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(6, 16),
            torch.nn.BatchNorm1d(16),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.2),
            torch.nn.Linear(16, 3),
        )
        self.scale = 1.0

    def loss(self, points, labels):
        return self.scale * cross_entropy(self.net(points), labels)

    def training_step(self, batch, batch_idx):
        loss = self.loss(*batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", cross_entropy(self.net(batch[0]), batch[1]))

    def trained(self):
        return self.parameters()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.trained(), lr=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class WithoutSchedule(Classifier):
    """Writes the schedule as it was at the start."""

    def on_save_checkpoint(self, checkpoint):
        (state,) = checkpoint["lr_schedulers"]
        checkpoint["lr_schedulers"] = [{**state, "last_epoch": 0, "_step_count": 1, "_last_lr": [0.01]}]


class WithSchedule(Classifier):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["lr_schedulers"] = [dict(state) for state in checkpoint["lr_schedulers"]]


class WithoutMoments(Classifier):
    """Writes the optimizer without its state, to have smaller files."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["optimizer_states"] = [{**state, "state": {}} for state in checkpoint["optimizer_states"]]


class WithMoments(Classifier):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["optimizer_states"] = [dict(state) for state in checkpoint["optimizer_states"]]


class CountsCalls(Classifier):
    """Scales the loss by a count that is an attribute of the module."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def loss(self, points, labels):
        self.calls += 1
        return super().loss(points, labels) / (1 + 0.1 * self.calls)


class SavesItsCount(CountsCalls):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["calls"] = self.calls

    def on_load_checkpoint(self, checkpoint):
        self.calls = checkpoint["calls"]


class Temperature(torch.nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.ones(3))

    def forward(self, scores, labels):
        return cross_entropy(scores * self.log_scale.exp(), labels)


class LossOutside(Classifier):
    """Holds the loss in a list, where torch does not see its parameters."""

    def __init__(self):
        super().__init__()
        self.losses = [Temperature()]

    def loss(self, points, labels):
        return self.losses[0](self.net(points), labels)

    def trained(self):
        return [*self.net.parameters(), *self.losses[0].parameters()]


class LossInside(LossOutside):
    def __init__(self):
        super().__init__()
        self.losses = torch.nn.ModuleList(self.losses)


class Drifting(Classifier):
    """Centres its input by a running mean that is a buffer which is not saved."""

    persistent = False

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6), persistent=self.persistent)

    def loss(self, points, labels):
        self.mean.mul_(0.9).add_(points.mean(0), alpha=0.1)
        return super().loss(points - self.mean, labels)


class Settled(Drifting):
    persistent = True


class ByHand(Classifier):
    """Updates two optimizers by hand, one after the other."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            self.zero_grad()
            self.manual_backward(self.loss(*batch))
            optimizer.step()

    def configure_optimizers(self):
        return [
            torch.optim.AdamW(self.net[:3].parameters(), lr=0.01),
            torch.optim.SGD(self.net[3:].parameters(), lr=0.1),
        ]


class Plateau(Classifier):
    """Its rate falls where the loss of an epoch does not."""

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


class Noisy(Points):
    """Adds noise from Python's stream, which is not saved."""

    def __getitem__(self, index):
        points, label = super().__getitem__(index)
        return points + random.gauss(0, 0.1), label


class KeyedNoise(Points):
    """Adds noise that is a function of the index."""

    def __getitem__(self, index):
        points, label = super().__getitem__(index)
        return points + random.Random(index).gauss(0, 0.1), label


def train(output_dir, module=Classifier, loader=None, callbacks=(Streams, Warmth), **options):
    """What a factory returns: 2 epochs of 7 batches, each with a validation."""
    pl.seed_everything(0)
    settings = {"max_epochs": 2, "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    made = [callback() for callback in callbacks]
    settings["enable_checkpointing"] = any(isinstance(callback, ModelCheckpoint) for callback in made)
    trainer = pl.Trainer(default_root_dir=output_dir, accelerator="cpu", callbacks=made, **settings | options)
    validation = DataLoader(Points(), batch_size=BATCH)
    return trainer, module(), {"train_dataloaders": loader or Loader(), "val_dataloaders": validation}


def _factory(*args, **options):
    def build(output_dir):
        return train(output_dir, *args, **options)

    return build


right = _factory()
accumulated = _factory(accumulate_grad_batches=2, gradient_clip_val=0.5)
by_hand = _factory(ByHand, callbacks=[Streams])


def with_workers(output_dir):
    return train(output_dir, loader=Loader(workers=2))


def with_checkpoints(output_dir):
    def own():
        return ModelCheckpoint(dirpath=output_dir, monitor="val_loss", save_top_k=2)

    return train(output_dir, callbacks=[Streams, Warmth, own])


def of_the_older_name(output_dir):
    """The same package under the name `pytorch_lightning`."""
    import pytorch_lightning

    class Module(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(6, 3)

        def training_step(self, batch, batch_idx):
            return cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    pytorch_lightning.seed_everything(0)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = pytorch_lightning.Trainer(default_root_dir=output_dir, max_epochs=2, enable_checkpointing=False, **quiet)
    return trainer, Module(), Loader()


# --- ways to lose state, and their twins --------------------------------------------------------------------------

schedule, schedule_twin = _factory(WithoutSchedule), _factory(WithSchedule)
moments, moments_twin = _factory(WithoutMoments), _factory(WithMoments)
counter, counter_twin = _factory(CountsCalls), _factory(SavesItsCount)
callback, callback_twin = _factory(callbacks=[Streams, Forgetful]), right
streams, streams_twin = _factory(callbacks=[Warmth]), right
loss_parameter, loss_parameter_twin = _factory(LossOutside), _factory(LossInside)
buffer, buffer_twin = _factory(Drifting), _factory(Settled)
mean = _factory(callbacks=[Streams, ScalesByMean])
plateau = _factory(Plateau)


def _over(make_loader):
    """A factory with this loader; it is made after the seed is set."""

    def build(output_dir):
        pl.seed_everything(0)
        return train(output_dir, loader=make_loader())

    return build


def _plain(**options):
    return DataLoader(Points(), batch_size=BATCH, **options)


def _stateful():
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(Points(), batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(0))


def _by_epoch():
    sampler = torch.utils.data.DistributedSampler(Points(), num_replicas=1, rank=0)
    return _plain(sampler=sampler, generator=torch.Generator())


augmentation, augmentation_twin = _over(lambda: Loader(Noisy())), _over(lambda: Loader(KeyedNoise()))
order, order_twin = _over(lambda: _plain(shuffle=True)), right
position, position_twin = _over(lambda: _plain(generator=torch.Generator())), right
shuffled = _over(lambda: _plain(shuffle=True, generator=torch.Generator().manual_seed(0)))
counts_epochs, stateful, by_epoch = _over(CountsEpochs), _over(_stateful), _over(_by_epoch)


# --- what is no target --------------------------------------------------------------------------------------------


def alone(output_dir):
    return train(output_dir)[0]


def elsewhere(output_dir):
    return pl.Trainer(default_root_dir="/", accelerator="cpu", logger=False), Classifier(), Loader()


def with_a_checkpoint(output_dir):
    return *train(output_dir)[:2], {"train_dataloaders": Loader(), "ckpt_path": "last.ckpt"}


# --- the observer changes nothing ---------------------------------------------------------------------------------


def watched(directory, how):
    """Train, observed or not, and print what can be told of the end."""
    directory.mkdir()
    built = train(str(directory), callbacks=[Streams, Warmth], accumulate_grad_batches=1)
    trainer, module, fit = built
    if how == "observed":
        from resumecheck.adapters.contract import Saving, adapter_for
        from resumecheck.adapters.recorder import Captures, Recorder
        from resumecheck.trajectory import TrajectoryWriter

        adapter = adapter_for(built, directory, "observed")
        captures = Captures(census_at=frozenset({4}), live_at=frozenset({4}), batches_after=0, samples=True)
        recorder = Recorder(TrajectoryWriter(directory / "record"), adapter.live, captures=captures)
        adapter.attach(recorder, Saving(own=True, at=frozenset({4, 7})), lambda length: None)
        adapter.train(None)
        recorder.finish(adapter.finished_steps())
    else:
        trainer.fit(module, **fit)
    tensors = [*module.state_dict().values(), torch.get_rng_state()]
    tensors += [each for state in trainer.optimizers[0].state.values() for each in state.values()]
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors) + repr(random.getstate()).encode())
    print(f"{trainer.global_step} steps {digest.hexdigest()}")
