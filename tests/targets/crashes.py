"""Loops whose save is killed: one that is whole or not there, and three mistakes."""

import json
import os
from pathlib import Path

import torch

from tests.targets.loops import PlainLoop


class WholeOrNot(PlainLoop):
    """Writes its file beside its place and gives it its name last; a directory without the file is no checkpoint."""

    def save(self, directory):
        unfinished = Path(directory, "state.pt.unfinished")
        torch.save(self.state_dict(), unfinished)
        os.replace(unfinished, Path(directory, "state.pt"))

    def load(self, directory):
        self.load_state_dict(torch.load(Path(directory, "state.pt"), weights_only=False))

    def newest_checkpoint(self, output_dir):
        found = [path.parent for path in Path(output_dir).glob("checkpoint-*/state.pt")]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class StartsOverSilently(WholeOrNot):
    """Writes in place; a checkpoint that cannot be loaded is passed over, and the run begins again."""

    def save(self, directory):
        torch.save(self.state_dict(), Path(directory, "state.pt"))

    def load(self, directory):
        try:
            super().load(directory)
        except Exception:
            print("no checkpoint")

    newest_checkpoint = None


class TakesTornWeights(WholeOrNot):
    """Writes the weights as lines in place, and takes as many of them as it finds."""

    def save(self, directory):
        torch.save({**self.state_dict(), "model": None}, Path(directory, "rest.pt"))
        with Path(directory, "weights.jsonl").open("w") as lines:
            for name, tensor in self.model.state_dict().items():
                lines.write(json.dumps([name, tensor.tolist()]) + "\n")

    def load(self, directory):
        state = torch.load(Path(directory, "rest.pt"), weights_only=False)
        weights = self.model.state_dict()
        for line in Path(directory, "weights.jsonl").read_text().splitlines():
            if line.endswith("]"):
                name, values = json.loads(line)
                weights[name] = torch.tensor(values, dtype=weights[name].dtype)
        self.load_state_dict({**state, "model": weights})

    def newest_checkpoint(self, output_dir):
        found = [path.parent for path in Path(output_dir).glob("checkpoint-*/weights.jsonl")]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class RemovesTheOldFirst(WholeOrNot):
    """Keeps one checkpoint, and removes the old one before the new one is there."""

    def save(self, directory):
        for old in Path(directory).parent.glob("checkpoint-*/state.pt"):
            old.unlink()
        super().save(directory)


def whole_or_not(output_dir):
    return WholeOrNot()


def written_by_resumecheck(output_dir):
    return PlainLoop()


def starts_over(output_dir):
    return StartsOverSilently()


def takes_torn_weights(output_dir):
    return TakesTornWeights()


def removes_the_old_first(output_dir):
    return RemovesTheOldFirst()


def starts_by_chance(output_dir):
    loop = WholeOrNot()
    stream = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
    torch.nn.init.normal_(loop.model[0].weight, generator=stream)
    return loop
