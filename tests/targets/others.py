"""Set-ups that fail, do not repeat themselves, lose two states at once, or look broken and are not."""

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer

from tests.targets.mutants import MomentsRounded
from tests.targets.plain import ROWS, Rows, make_model, make_trainer


class FailsOnResume(Trainer):
    def _load_rng_state(self, checkpoint):
        if checkpoint is not None:
            raise ValueError("the vocabulary is gone")


def fails_on_resume(output_dir):
    return make_trainer(output_dir, FailsOnResume)


def unseeded(output_dir):
    torch.seed()
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
