"""Loops with state that is no single tensor, each with a twin that restores it."""

import weakref

import torch


class Loop:
    """Twelve steps on numbers from torch's stream."""

    max_steps = 12

    def __init__(self):
        torch.manual_seed(0)
        self.model = self.make_model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.step = 0

    def make_model(self):
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

    def state_dict(self):
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**parts, "step": self.step, "stream": torch.get_rng_state()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        torch.set_rng_state(state["stream"])

    def update(self, x):
        loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def steps(self):
        while self.step < self.max_steps:
            loss = self.update(torch.randn(8, 4))
            self.step += 1
            yield loss


class KeepsDirections(Loop):
    """LBFGS, whose state has lists of tensors."""

    def __init__(self):
        super().__init__()
        self.optimizer = torch.optim.LBFGS(self.model.parameters(), lr=0.1, max_iter=3, history_size=4)

    def update(self, x):
        def closure():
            self.optimizer.zero_grad()
            loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
            loss.backward()
            return loss

        return self.optimizer.step(closure)


class LosesDirections(KeepsDirections):
    """Makes a new optimizer when it is resumed."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.optimizer = torch.optim.LBFGS(self.model.parameters(), lr=0.1, max_iter=3, history_size=4)


class TwoOptimizers(Loop):
    """One optimizer for each layer, of one shape; their states are saved apart."""

    def __init__(self):
        super().__init__()
        self.optimizer = torch.optim.Adam(self.model[0].parameters(), lr=0.01)
        self.other = torch.optim.Adam(self.model[2].parameters(), lr=0.01)

    def make_model(self):
        return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4))

    def saved(self):
        return self.other

    def state_dict(self):
        return {**super().state_dict(), "other": self.saved().state_dict()}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.other.load_state_dict(state["other"])

    def update(self, x):
        self.other.zero_grad()
        loss = super().update(x)
        self.other.step()
        return loss


class SavesOneTwice(TwoOptimizers):
    """Saves the first one's state under both names."""

    def saved(self):
        return self.optimizer


class TrainsAnOldModel(Loop):
    """Puts a new model in place when it is resumed, and the optimizer holds the parameters of the old one."""

    def load_state_dict(self, state):
        self.model = self.make_model()
        super().load_state_dict(state)


class Gone:
    """An object to which only a weak proxy is left."""


class HoldsAProxy(Loop):
    """Has an attribute whose object is gone: whoever looks at it gets a ReferenceError."""

    def __init__(self):
        super().__init__()
        self.proxy = weakref.proxy(Gone())


def directions(output_dir):
    return KeepsDirections()


def directions_lost(output_dir):
    return LosesDirections()


def two_optimizers(output_dir):
    return TwoOptimizers()


def one_saved_twice(output_dir):
    return SavesOneTwice()


def old_model_trained(output_dir):
    return TrainsAnOldModel()


def proxy(output_dir):
    return HoldsAProxy()
