"""Loops of one's own, plain and with accelerate: right, and each with five ways to lose state over a resume."""

import random

import numpy as np
import torch
from accelerate import Accelerator, skip_first_batches
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

ROWS = 28


class Points(Dataset):
    """Rows whose content is a pure function of the index."""

    def __len__(self):
        return ROWS

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(6, generator=generator), index % 3


def make_model():
    """Weights, a buffer that training changes, and dropout; always with the same start."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 3)
    )


class PlainLoop:
    """Two epochs of 7 batches; each epoch's order is a function of the epoch."""

    def __init__(self, workers=0):
        random.seed(0)
        np.random.seed(0)
        self.model = make_model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (1 + step))
        self.order = torch.Generator()
        self.loader = DataLoader(Points(), batch_size=4, shuffle=True, generator=self.order, num_workers=workers)
        self.max_steps = 14
        self.max_norm = 1.0
        self.epoch = self.batch = 0

    def state_dict(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "position": (self.epoch, self.batch),
            "streams": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
        }

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.batch = state["position"]
        random.setstate(state["streams"][0])
        np.random.set_state(state["streams"][1])
        torch.set_rng_state(state["streams"][2])

    def steps(self):
        self.model.train()
        for self.epoch in range(self.epoch, 2):  # noqa: B020
            self.order.manual_seed(self.epoch)
            for index, (points, labels) in enumerate(self.loader):
                if index < self.batch:
                    continue
                loss = self.loss(points, labels)
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
                self.optimizer.step()
                self.scheduler.step()
                self.batch = index + 1
                yield loss
            self.batch = 0

    def loss(self, points, labels):
        return cross_entropy(self.model(points), labels)


class PlainWithoutSchedule(PlainLoop):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "scheduler": self.scheduler.state_dict()})
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True):
            group["lr"] = rate


class PlainDataStartsOver(PlainLoop):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "position": (state["position"][0], 0)})


class PlainWithoutStreams(PlainLoop):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "streams": (random.getstate(), np.random.get_state(), torch.get_rng_state())})


class PlainWithoutMoments(PlainLoop):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "optimizer": {**state["optimizer"], "state": {}}})


class RemembersLosses:
    """Scales the loss of a loop by a mean of the losses before, which is an attribute of the loop."""

    def __init__(self, workers=0):
        super().__init__(workers)
        self.mean = 1.0

    def loss(self, points, labels):
        loss = super().loss(points, labels) / self.mean
        self.mean = 0.9 * self.mean + 0.1 * loss.item()
        return loss


class SavesItsMean(RemembersLosses):
    """The twin of the one before."""

    def state_dict(self):
        return {**super().state_dict(), "mean": self.mean}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.mean = state["mean"]


class PlainRemembersLosses(RemembersLosses, PlainLoop):
    pass


class PlainSavesItsMean(SavesItsMean, PlainLoop):
    pass


class PlainWithNoise(PlainLoop):
    """Adds noise between loader and model, from a generator that starts again."""

    def __init__(self, workers=0):
        super().__init__(workers)
        self.noise = torch.Generator().manual_seed(5)

    def loss(self, points, labels):
        return super().loss(points + 0.1 * torch.randn(points.shape, generator=self.noise), labels)


class PlainWithLocal(PlainLoop):
    """Keeps a mean of the losses in a local variable of the generator."""

    def steps(self):
        mean = 1.0
        self.model.train()
        while self.batch < self.max_steps:
            self.order.manual_seed(self.batch)
            points, labels = next(iter(self.loader))
            loss = self.loss(points, labels) / mean
            mean = 0.9 * mean + 0.1 * loss.item()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.batch += 1
            yield loss


class AccelerateLoop:
    """The same training with accelerate, which saves and loads; two batches for each update."""

    def __init__(self, workers=0):
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        random.seed(0)
        np.random.seed(0)
        model = make_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        # Without it, making an iterator draws from torch's global stream: once more in a resumed run.
        self.order = torch.Generator()
        loader = DataLoader(Points(), batch_size=2, shuffle=True, generator=self.order, num_workers=workers)
        self.model, self.optimizer, self.scheduler, self.loader = self.accelerator.prepare(
            model, optimizer, scheduler, loader
        )
        self.epoch = self.batch = 0
        self.max_steps = 14
        self.accelerator.register_for_checkpointing(self)

    def state_dict(self):
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state):
        self.epoch, self.batch = state["epoch"], state["batch"]

    def save(self, directory):
        self.accelerator.save_state(directory)

    def load(self, directory):
        self.accelerator.load_state(directory)

    def steps(self):
        self.model.train()
        for self.epoch in range(self.epoch, 2):  # noqa: B020
            self.order.manual_seed(self.epoch)
            loader = skip_first_batches(self.loader, self.batch) if self.batch else self.loader
            for index, (points, labels) in enumerate(loader, start=self.batch):
                with self.accelerator.accumulate(self.model):
                    loss = self.loss(points, labels)
                    self.accelerator.backward(loss)
                    self.optimizer.step()
                    self.scheduler.step()
                    self.optimizer.zero_grad()
                self.batch = index + 1
                if self.accelerator.sync_gradients:
                    yield {"loss": loss}
            self.batch = 0

    def loss(self, points, labels):
        return cross_entropy(self.model(points), labels)


class AccelerateWithoutSchedule(AccelerateLoop):
    def load(self, directory):
        start = self.scheduler.scheduler.state_dict()
        super().load(directory)
        self.scheduler.scheduler.load_state_dict(start)
        for group in self.optimizer.param_groups:
            group["lr"] = start["_last_lr"][0]


class AccelerateDataStartsOver(AccelerateLoop):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "batch": 0})


class AccelerateWithoutStreams(AccelerateLoop):
    def load(self, directory):
        streams = random.getstate(), np.random.get_state(), torch.get_rng_state()
        super().load(directory)
        random.setstate(streams[0])
        np.random.set_state(streams[1])
        torch.set_rng_state(streams[2])


class AccelerateWithoutMoments(AccelerateLoop):
    def load(self, directory):
        super().load(directory)
        self.optimizer.optimizer.state.clear()


class AccelerateRemembersLosses(RemembersLosses, AccelerateLoop):
    pass


class AccelerateSavesItsMean(SavesItsMean, AccelerateLoop):
    pass


def _factory(loop):
    def build(output_dir):
        return loop()

    return build


plain, accelerated = _factory(PlainLoop), _factory(AccelerateLoop)
plain_schedule, accelerated_schedule = _factory(PlainWithoutSchedule), _factory(AccelerateWithoutSchedule)
plain_position, accelerated_position = _factory(PlainDataStartsOver), _factory(AccelerateDataStartsOver)
plain_streams, accelerated_streams = _factory(PlainWithoutStreams), _factory(AccelerateWithoutStreams)
plain_moments, accelerated_moments = _factory(PlainWithoutMoments), _factory(AccelerateWithoutMoments)
plain_mean, accelerated_mean = _factory(PlainRemembersLosses), _factory(AccelerateRemembersLosses)
plain_mean_twin, accelerated_mean_twin = _factory(PlainSavesItsMean), _factory(AccelerateSavesItsMean)
plain_noise, plain_local = _factory(PlainWithNoise), _factory(PlainWithLocal)


def plain_with_workers(output_dir):
    return PlainLoop(workers=2)


def accelerated_with_workers(output_dir):
    return AccelerateLoop(workers=2)


class CannotBeResumed:
    model = None

    def steps(self):
        yield 1


def cannot_be_resumed(output_dir):
    return CannotBeResumed()


class HoldsNoModel(CannotBeResumed):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def holds_no_model(output_dir):
    return HoldsNoModel()


class NeverTrains(PlainLoop):
    def steps(self):
        yield 1.0


never_trains = _factory(NeverTrains)
