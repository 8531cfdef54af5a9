"""The trainer over the tiny encoder as a target for a check, in the ways that a resume could depend on."""

from pathlib import Path

from tests.embedding import tiny


def build(output_dir, *, directory, **changes):
    """The trainer that the options of `resumecheck train` describe; `directory` holds encoder and data."""
    from resumecheck.embedding.arguments import parse_train_arguments
    from resumecheck.embedding.train import build_trainer

    directory = Path(directory)
    options = tiny.train_options(directory / "encoder", directory / "data" / "train.jsonl", Path(output_dir), **changes)
    return build_trainer(*parse_train_arguments(options))


def build_with_global_negatives(output_dir, *, directory, **changes):
    """Broken on purpose: negatives come from the global random stream, as in FlagEmbedding."""
    import random

    from resumecheck.embedding.dataset import TrainDataset

    class GlobalNegatives(TrainDataset):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            negatives = random.sample(self.rows[index.row]["neg"], len(sample.passages) - 1)
            return sample._replace(passages=[sample.passages[0], *negatives])

    trainer = build(output_dir, directory=directory, **changes)
    trainer.data.__class__ = GlobalNegatives
    return trainer


def build_with_counted_epochs(output_dir, *, directory, **changes):
    """Broken on purpose: the epoch is counted in an attribute, which no checkpoint holds."""
    trainer = build(output_dir, directory=directory, **changes)
    started = iter(range(1_000))
    trainer.finished_epochs = lambda: next(started)
    return trainer


def build_with_counted_batches(output_dir, *, directory, **changes):
    """Broken on purpose: self-distillation starts by an attribute that counts batches, as in FlagEmbedding."""
    trainer = build(output_dir, directory=directory, **changes)
    batches = iter(range(1_000))
    trainer.distills_itself = lambda: next(batches) > trainer.args.self_distill_start_step
    return trainer


def build_with_global_examples(output_dir, *, directory, **changes):
    """Broken on purpose: in-context examples come from the global random stream, as in FlagEmbedding."""
    import random

    from resumecheck.embedding.dataset import TrainDataset

    class GlobalExamples(TrainDataset):
        def _examples(self, row, key):
            return [self._example(random.choice(range(4)), key)]

    trainer = build(output_dir, directory=directory, **changes)
    trainer.data.__class__ = GlobalExamples
    return trainer
