"""The options of FlagEmbedding 1.4.2's `finetune.embedder` and of its scripts, and what becomes of each here.

`python -m resumecheck.embedding.flagembedding` writes docs/flagembedding.md; a test fails where the page is not what
the tables say, or where an option is neither understood nor refused by name.
"""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "flagembedding.md"

#: family -> its options, as FlagEmbedding's dataclasses have them, beside those of transformers' TrainingArguments.
FAMILIES: dict[str, tuple[str, ...]] = {
    "every model": (
        "model_name_or_path", "config_name", "tokenizer_name", "cache_dir", "trust_remote_code", "use_fast_tokenizer",
        "token", "train_data", "cache_path", "train_group_size", "query_max_len", "passage_max_len",
        "pad_to_multiple_of", "max_example_num_per_dataset", "query_instruction_for_retrieval",
        "query_instruction_format", "knowledge_distillation", "passage_instruction_for_retrieval",
        "passage_instruction_format", "shuffle_ratio", "same_dataset_within_batch", "small_threshold", "drop_threshold",
        "negatives_cross_device", "temperature", "fix_position_embedding", "sentence_pooling_method",
        "normalize_embeddings", "sub_batch_size", "kd_loss_type", "use_mrl", "mrl_dims",
    ),
    "M3": ("colbert_dim", "unified_finetuning", "use_self_distill", "fix_encoder", "self_distill_start_step"),
    "decoders": (
        "peft_model_path", "use_lora", "lora_rank", "lora_alpha", "lora_dropout", "target_modules", "use_flash_attn",
        "use_slow_tokenizer", "from_peft", "modules_to_save", "raw_peft", "additional_special_tokens",
        "save_merged_lora_model", "only_merge_lora_model",
    ),
    "in-context learning": (
        "example_query_max_len", "example_passage_max_len", "retrieval_use_examples", "icl_suffix_str",
    ),
}  # fmt: skip

_ONE_TOKENIZER = "the tokenizer that the model comes with is used; leave the option out"
#: option -> why it is refused, and what to give instead.
NOT_CARRIED_OVER: dict[str, str] = {
    "config_name": "the configuration is read from --model_name_or_path; leave the option out",
    "use_fast_tokenizer": _ONE_TOKENIZER,
    "use_slow_tokenizer": _ONE_TOKENIZER,
    "token": "set the environment variable HF_TOKEN, which does not show in a list of processes",
    "use_flash_attn": "give --attn_implementation flash_attention_2",
    "peft_model_path": "give --from_peft",
    "raw_peft": "merge that adapter into the model first, and give the result as --model_name_or_path",
    "only_merge_lora_model": "give --save_merged_lora_model when training",
}


#: family -> what to know before a command line for it is used.
_NOTES = {
    "decoders": "Every text ends with the tokenizer's `eos_token`, whose vector is the embedding; a text that is too "
    "long is cut before it. FlagEmbedding asks the tokenizer for that (`add_eos_token=True`), which the classes for "
    "LLaMA and Gemma follow; others, Qwen2's among them, do not in the transformers that it works with. Here the token "
    "is put there whatever the class, and the rule is written with the tokenizer, so `evaluate`, `mine`, `export` and "
    "others who load the model have it too. A tokenizer without such a token stays as it is.",
    "in-context learning": "FlagEmbedding trains with examples where its module for them is started, and takes them "
    "from the batch. Here `--retrieval_use_examples True` asks for them, they come from the file of a row, and batches "
    "may be mixed. `\\n` in `--icl_suffix_str` means a line break, as it does in the formats of instructions. "
    "`evaluate` and `mine` put the examples of `--examples_for_task` before each query, in the form of training: the "
    "instruction (an example's `instruct` takes its place), the query, the suffix, the `response`, an empty line. "
    "Where not all of them fit, that is an error; FlagEmbedding does not count them, and has a format for them.",
}

_IN_FLOAT32 = "vectors and scores are computed in float32, whatever the machine; leave the option out"
_DEVICES = "a GPU is used where there is one; set the environment variable CUDA_VISIBLE_DEVICES to choose"
_NO_GENERATING_RERANKER = "rerankers are models of sequence classification with one output here; leave the option out"

#: command -> the script of FlagEmbedding that does the same, and the script's options.
SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mine": ("hn_mine", (
        "input_file", "output_file", "candidate_pool", "range_for_sampling", "negative_number", "use_gpu_for_searching",
        "search_batch_size", "embedder_name_or_path", "embedder_model_class", "normalize_embeddings", "pooling_method",
        "use_fp16", "devices", "query_instruction_for_retrieval", "query_instruction_format_for_retrieval",
        "examples_for_task", "examples_instruction_format", "trust_remote_code", "cache_dir", "batch_size",
        "embedder_query_max_length", "embedder_passage_max_length",
    )),
    "score": ("add_reranker_score", (
        "input_file", "output_file", "use_fp16", "use_bf16", "devices", "trust_remote_code", "reranker_name_or_path",
        "reranker_model_class", "reranker_peft_path", "query_instruction_for_rerank",
        "query_instruction_format_for_rerank", "passage_instruction_for_rerank",
        "passage_instruction_format_for_rerank", "cache_dir", "reranker_batch_size", "reranker_query_max_length",
        "reranker_max_length", "normalize", "prompt", "cutoff_layers", "compress_ratio", "compress_layers",
    )),
}  # fmt: skip
#: command -> option of its script -> why it is refused, and what to give instead.
REFUSED_BY: dict[str, dict[str, str]] = {
    "train": NOT_CARRIED_OVER,
    "mine": {
        "embedder_model_class": "the directory of a model says what it is; leave the option out",
        "use_fp16": _IN_FLOAT32,
        "devices": _DEVICES,
        "trust_remote_code": "train or export the model to a directory that needs no code of its own",
        "cache_dir": "give the directory of the model; for one from the hub, set the environment variable HF_HOME",
        "examples_instruction_format": "an example has the form that it had in training; leave the option out",
    },
    "score": {
        "use_fp16": _IN_FLOAT32,
        "use_bf16": _IN_FLOAT32,
        "devices": _DEVICES,
        "reranker_peft_path": "merge the adapter into the model first, and give the result as --reranker_name_or_path",
        **dict.fromkeys(
            ("reranker_model_class", "prompt", "cutoff_layers", "compress_ratio", "compress_layers"),
            _NO_GENERATING_RERANKER,
        ),
    },
}


def understood_by(command: str) -> dict[str, str]:
    """The options of a command that does what a script does -> their help."""
    from resumecheck.embedding.mine import MineArguments
    from resumecheck.embedding.score import ScoreArguments

    options = {"mine": MineArguments, "score": ScoreArguments}[command]
    return {field.name: field.metadata.get("help", "") for field in dataclasses.fields(options)}


def understood() -> dict[str, str]:
    """The options of `resumecheck train` beside those of transformers -> their help."""
    from resumecheck.embedding.arguments import DataArguments, EmbeddingTrainingArguments, ModelArguments

    fields = [
        field
        for part in (ModelArguments, DataArguments, EmbeddingTrainingArguments)
        for field in dataclasses.fields(part)
    ]
    return {field.name: field.metadata.get("help", "") for field in fields}


def page() -> str:
    """The page, as Markdown."""
    helps = understood()
    lines = [
        "# FlagEmbedding's options",
        "",
        "<!-- written by `python -m resumecheck.embedding.flagembedding` -->",
        "",
        "A command line for the `finetune.embedder` of FlagEmbedding 1.4.2 works with `resumecheck train`, as far as",
        "its options are carried over. One that is not is refused by name, with what to give instead; none is ignored.",
        "The options of transformers' `TrainingArguments` are understood as well.",
    ]
    for family, names in FAMILIES.items():
        notes = [*textwrap.wrap(_NOTES[family], 120, break_long_words=False), ""] if family in _NOTES else []
        lines += ["", f"## For {family}", "", *notes, *_table(names, helps, NOT_CARRIED_OVER)]
    for command, (script, names) in SCRIPTS.items():
        lines += ["", f"## `resumecheck {command}`, for the script `{script}`", ""]
        lines += _table(names, understood_by(command), REFUSED_BY[command])
    return "\n".join(lines) + "\n"


def _table(names: tuple[str, ...], helps: dict[str, str], refused: dict[str, str]) -> list[str]:
    rows = [(name, f"refused: {refused[name]}" if name in refused else helps[name]) for name in names]
    told = [f"| `--{name}` | {text.replace('|', chr(92) + '|')} |" for name, text in rows]
    return ["| option | here |", "| --- | --- |", *told]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
