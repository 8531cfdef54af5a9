"""Set-ups that fail, do not repeat themselves, lose two states at once, or look broken and are not."""

import os
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback

from tests.targets.mutants import CountsCalls, MomentsRounded
from tests.targets.plain import ROWS, Rows, make_model, make_trainer


class FailsOnResume(Trainer):
    def _load_rng_state(self, checkpoint):
        if checkpoint is not None:
            raise ValueError("the vocabulary is gone")


def fails_on_resume(output_dir):
    return make_trainer(output_dir, FailsOnResume)


def unseeded(output_dir):
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return make_trainer(
        output_dir, model=BertForSequenceClassification(BertConfig(vocab_size=64, num_labels=3, **shape))
    )


class InTheOrderOfASet(Rows):
    def __getitem__(self, index):
        names = list({f"row {number}" for number in range(ROWS)})
        return super().__getitem__(int(names[index].removeprefix("row ")))


def order_from_a_set(output_dir):
    return make_trainer(output_dir, rows=InTheOrderOfASet())


class MomentsRoundedAndNoStreams(MomentsRounded):
    def _load_rng_state(self, checkpoint):
        pass


def two_losses(output_dir):
    return make_trainer(output_dir, MomentsRoundedAndNoStreams)


class RemakesItsMask(BertForSequenceClassification):
    """A cache that no checkpoint holds and that each forward makes anew where it is missing."""

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("mask", None, persistent=False)

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        length = input_ids.shape[1]
        if self.mask is None or len(self.mask) < length:
            self.mask = torch.tril(torch.ones(length, length))
        output = super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        output.loss = output.loss + 0.001 * self.mask.sum()
        return output


def remade_cache(output_dir):
    return make_trainer(output_dir, model=make_model(RemakesItsMask))


class Average(TrainerCallback):
    """A running average of the weights, held by a callback that no checkpoint knows."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.average = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        for name, parameter in model.named_parameters():
            self.average[name].lerp_(parameter.detach(), 0.1)


class LastWeights(Average):
    """The weights of the last step, taken anew at each step: nothing is lost with them."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        for name, parameter in model.named_parameters():
            self.average[name].copy_(parameter.detach())


def average_of_weights(output_dir):
    trainer = make_trainer(output_dir)
    trainer.add_callback(Average())
    return trainer


def copy_of_weights(output_dir):
    trainer = make_trainer(output_dir)
    trainer.add_callback(LastWeights())
    return trainer


class SkipsOneTooFew(Trainer):
    def _init_training_state(self, *args, **kwargs):
        epochs, skipped = super()._init_training_state(*args, **kwargs)
        return epochs, max(0, skipped - 1)


def skips_one_too_few(output_dir):
    return make_trainer(output_dir, SkipsOneTooFew)


class IgnoresTheCheckpoint(Trainer):
    def train(self, resume_from_checkpoint=None, **kwargs):
        return super().train(**kwargs)


def ignores_the_checkpoint(output_dir):
    return make_trainer(output_dir, IgnoresTheCheckpoint)


class HoldsAnotherOptimizer(Trainer):
    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            groups = self.lr_scheduler.optimizer.param_groups
            other = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in groups], lr=1e-3)
            for group in other.param_groups:
                group["initial_lr"] = 1e-3
            self.lr_scheduler.optimizer = other


def holds_another_optimizer(output_dir):
    return make_trainer(output_dir, HoldsAnotherOptimizer)


class TremblingLoss(Trainer):
    """A loss with a relative tremble of about one in a million that no seed governs, as kernels may have."""

    size = 1e-6

    def compute_loss(self, model, inputs, **kwargs):
        tremble = 2 * int.from_bytes(os.urandom(4), "big") / 2**32 - 1
        return super().compute_loss(model, inputs, **kwargs) * (1 + self.size * tremble)


class TremblingAndForgetful(TremblingLoss, MomentsRounded):
    def _load_optimizer_and_scheduler(self, checkpoint):
        super(MomentsRounded, self)._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for state in self.optimizer.state.values():
                state["exp_avg"].zero_()


def trembling(output_dir):
    return make_trainer(output_dir, TremblingLoss)


def trembling_and_forgetful(output_dir):
    return make_trainer(output_dir, TremblingAndForgetful)


class ActsLate(TrainerCallback):
    """Counts its own steps, and stops weight decay at the eighth: nothing shows before that."""

    def __init__(self):
        self.steps = 0

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        self.steps += 1
        if self.steps == 8:
            for group in optimizer.param_groups:
                group["betas"] = (0.5, 0.9)


def acts_late(output_dir):
    trainer = make_trainer(output_dir)
    trainer.add_callback(ActsLate())
    return trainer


class SavesWhatItCountedItself(Trainer):
    """The count is right after one resume: what is saved then is the count since the load."""

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        file = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / "calls.txt"
        file.write_text(str(self.model.calls - self.model.loaded * self.forgets))

    forgets = 1

    def _load_from_checkpoint(self, checkpoint, model=None):
        super()._load_from_checkpoint(checkpoint, model)
        self.model.calls = self.model.loaded = int((Path(checkpoint) / "calls.txt").read_text())


class SavesAllThatWasCounted(SavesWhatItCountedItself):
    forgets = 0


class CountsFromALoad(CountsCalls):
    loaded = 0


def second_resume_is_wrong(output_dir):
    return make_trainer(output_dir, SavesWhatItCountedItself, model=make_model(CountsFromALoad))


def second_resume_is_right(output_dir):
    return make_trainer(output_dir, SavesAllThatWasCounted, model=make_model(CountsFromALoad))
