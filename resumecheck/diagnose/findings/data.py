"""RC2xx: which samples come, from where on, and what they hold."""

from __future__ import annotations

from resumecheck.diagnose.findings.kind import FindingKind

KINDS: tuple[FindingKind, ...] = (
    FindingKind(
        code="RC201",
        component="data-order",
        title="the samples come in another order",
        advice="Make the order a pure function of (seed, epoch), and set the epoch on the sampler that is really "
        "iterated.",
        meaning="The resumed run draws its samples in another order, in this epoch or from the next one on. Within an "
        "epoch that means that some samples are seen twice and others never.",
        causes=(
            "The epoch is set on one loader, while another one, made to skip batches, is iterated and starts at epoch "
            "0 (transformers #40691, ms-swift #10050).",
            "The order of the resumed epoch is that of the next one (accelerate #2823).",
            "The sampler saves its place, but not its epoch (torchdata #1513).",
            "The random stream is restored before the permutation is drawn, so that another one is skipped in "
            "(transgenic #59).",
            "The order comes from a global random stream, and is in no checkpoint (transformers #11582).",
        ),
        example="""
            import torch
            from transformers import Trainer


            class Shuffled(torch.utils.data.Sampler):
                def __init__(self, size):
                    self.size, self.epoch = size, 0

                def __len__(self):
                    return self.size

                def __iter__(self):
                    generator = torch.Generator().manual_seed(self.epoch)
                    self.epoch += 1  # counts from 0 again in a resumed run
                    yield from torch.randperm(self.size, generator=generator).tolist()


            class ShufflesByItself(Trainer):
                def _get_train_sampler(self, train_dataset=None):
                    return Shuffled(len(self.train_dataset))
            """,
        cure="""
            import torch
            from transformers import Trainer


            class Shuffled(torch.utils.data.Sampler):
                def __init__(self, size):
                    self.size, self.epoch = size, 0

                def __len__(self):
                    return self.size

                def set_epoch(self, epoch):  # called by the trainer, which knows the epoch from the checkpoint
                    self.epoch = epoch

                def __iter__(self):
                    generator = torch.Generator().manual_seed(self.epoch)
                    yield from torch.randperm(self.size, generator=generator).tolist()


            class ShufflesByEpoch(Trainer):
                def _get_train_sampler(self, train_dataset=None):
                    return Shuffled(len(self.train_dataset))
            """,
    ),
    FindingKind(
        code="RC202",
        component="data-position",
        title="the run takes up the data at another place",
        advice="Count what was consumed in the unit that is skipped (micro-batches, not optimizer steps), and skip "
        "exactly that.",
        meaning="The order of the samples is right, but the resumed run starts too early or too late in it.",
        causes=(
            "Optimizer steps are skipped where micro-batches were consumed (transformers #5605, #8624).",
            "Batches that were fetched ahead are counted as used, or the other way round (accelerate #3952).",
            "A batch sampler yields fewer batches than its length says (sentence-transformers #3348).",
            "The count starts again when it is loaded, so that the second resume is wrong (KempnerForge #57).",
            "The shuffle buffer of a stream is not saved; its samples are lost (datasets #7901).",
            "Two places skip: the data set takes up where it was, and the trainer skips as well.",
        ),
        example="""
            from transformers import TrainingArguments

            # resumes faster, at the start of the epoch: what was trained on already is trained on again
            arguments = TrainingArguments("out", ignore_data_skip=True)
            """,
        cure="""
            from transformers import TrainingArguments

            arguments = TrainingArguments("out")  # the batches that were trained on are skipped
            """,
    ),
    FindingKind(
        code="RC204",
        component="data-content",
        title="the same samples arrive with other content",
        advice="Draw augmentation and negatives from a generator keyed by (seed, epoch, sample id), never from a "
        "global stream.",
        meaning="The batch consists of the right samples, but what the model gets is not the same: other masks, other "
        "crops, other negatives.",
        causes=(
            "The first resumed batches are fetched before the random streams are restored, and batches are fetched "
            "ahead of the save (transformers #46628).",
            "The collator draws from a global stream, or from a generator of its own that starts again (transformers "
            "#36357).",
            "Workers are seeded anew when they start, so what they draw depends on how often they were started.",
            "The content depends on a counter or a buffer of the data set that no checkpoint holds.",
        ),
        example="""
            import random

            import torch

            MASK = 3


            class Masked(torch.utils.data.Dataset):
                def __init__(self, rows):
                    self.rows = rows

                def __len__(self):
                    return len(self.rows)

                def __getitem__(self, index):
                    row = self.rows[index]
                    row["input_ids"][random.randrange(len(row["input_ids"]))] = MASK
                    return row
            """,
        cure="""
            import random

            import torch
            from transformers import TrainerCallback

            MASK = 3


            class Masked(torch.utils.data.Dataset):
                def __init__(self, rows, seed=0):
                    self.rows, self.seed, self.epoch = rows, seed, 0

                def __len__(self):
                    return len(self.rows)

                def __getitem__(self, index):
                    row = self.rows[index]
                    draw = random.Random(f"{self.seed} {self.epoch} {index}")
                    row["input_ids"][draw.randrange(len(row["input_ids"]))] = MASK
                    return row


            class SetsEpoch(TrainerCallback):
                def __init__(self, data):
                    self.data = data

                def on_epoch_begin(self, args, state, control, **kwargs):
                    self.data.epoch = int(state.epoch)  # persistent workers keep the epoch they were started in
            """,
    ),
)
