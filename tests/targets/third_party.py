"""Trainers of other projects, as their users write them: sentence-transformers and TRL, on models of a few weights."""

from pathlib import Path

from tests.embedding import tiny

ARGUMENTS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "save_strategy": "no",
    "logging_steps": 3,
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
}


def _encoder(output_dir):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    encoder = Transformer(str(tiny.write_encoder(Path(output_dir) / "encoder")), max_seq_length=16)
    return SentenceTransformer(modules=[encoder, Pooling(16)], device="cpu")


def _pairs():
    from datasets import Dataset

    queries, passages = tiny.texts(28, seed=1), tiny.texts(28, seed=2)
    queries[8:14] = queries[:6]  # Duplicates, which the sampler has to keep apart.
    return Dataset.from_dict({"anchor": queries, "positive": passages})


def _trainer(output_dir, loss=None, rows=None, **changes):
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = _encoder(output_dir)
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(output_dir=str(output_dir), **{**ARGUMENTS, **changes}),
        train_dataset=rows if rows is not None else _pairs(),
        loss=(loss or MultipleNegativesRankingLoss)(model),
    )


def default_sampler(output_dir):
    return _trainer(output_dir)


def no_duplicates(output_dir):
    return _trainer(output_dir, batch_sampler="no_duplicates")


def loss_with_a_parameter(output_dir):
    """A classifier over pairs: the layer that is trained with the model is part of the loss."""
    from datasets import Dataset
    from sentence_transformers.sentence_transformer.losses import SoftmaxLoss

    pairs = {"first": tiny.texts(28, seed=1), "second": tiny.texts(28, seed=2), "label": [n % 3 for n in range(28)]}
    rows = Dataset.from_dict(pairs)
    return _trainer(output_dir, lambda model: SoftmaxLoss(model, 16, num_labels=3), rows)


def supervised_fine_tuning(output_dir):
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    directory = tiny.write_decoder(Path(output_dir) / "decoder")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.eos_token = "[SEP]"
    import torch

    torch.manual_seed(0)
    return SFTTrainer(
        model=LlamaForCausalLM.from_pretrained(directory),
        args=SFTConfig(output_dir=str(output_dir), max_length=16, dataset_num_proc=None, **ARGUMENTS),
        train_dataset=Dataset.from_dict({"text": tiny.texts(28, seed=3)}),
        processing_class=tokenizer,
    )
