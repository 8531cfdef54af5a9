"""A small text classifier on the Hugging Face Trainer that masks words at random, anew each time it reads them."""

import random

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

VOCABULARY, LENGTH, MASK = 100, 12, 3


class Sentences(torch.utils.data.Dataset):
    """56 sentences of made-up words; the label says which half of the vocabulary they use more."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.words = torch.randint(4, VOCABULARY, (56, LENGTH), generator=generator)

    def __len__(self):
        return len(self.words)

    def __getitem__(self, index):
        words = self.words[index].clone()
        masked = [random.random() < 0.15 for _ in range(LENGTH)]
        words[torch.tensor(masked)] = MASK
        label = int((self.words[index] > VOCABULARY / 2).float().mean() > 0.5)
        return {"input_ids": words, "labels": label}


class SentencesMaskedByKey(Sentences):
    """The same, but the mask is a function of (epoch, sentence), so a resumed run finds it again."""

    epoch = 0

    def __getitem__(self, index):
        random_stream = random.Random(f"{self.epoch} {index}")
        words = self.words[index].clone()
        masked = [random_stream.random() < 0.15 for _ in range(LENGTH)]
        words[torch.tensor(masked)] = MASK
        label = int((self.words[index] > VOCABULARY / 2).float().mean() > 0.5)
        return {"input_ids": words, "labels": label}


class SetEpoch(TrainerCallback):
    """Tells the data set the epoch, which the checkpoint holds."""

    def __init__(self, sentences):
        self.sentences = sentences

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sentences.epoch = int(state.epoch)


def build(output_dir, sentences=Sentences):
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
    )
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=output_dir,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        warmup_steps=2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
    )
    return Trainer(model=BertForSequenceClassification(config), args=arguments, train_dataset=sentences())


def build_keyed(output_dir):
    trainer = build(output_dir, SentencesMaskedByKey)
    trainer.add_callback(SetEpoch(trainer.train_dataset))
    return trainer
