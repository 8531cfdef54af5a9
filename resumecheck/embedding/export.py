"""`resumecheck export`: a model directory that sentence-transformers loads, with the same vectors on a device."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resumecheck.embedding import checkpoint
from resumecheck.embedding.command import run_command
from resumecheck.embedding.heads import written_heads
from resumecheck.embedding.model import load_encoder, load_tokenizer, longest_input
from resumecheck.embedding.settings import EmbeddingSettings, read_settings
from resumecheck.errors import UsageError

_POOLING = {"cls": "cls_token", "mean": "mean_tokens", "last_token": "lasttoken"}
_MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}


@dataclasses.dataclass
class ExportArguments:
    """Options of `resumecheck export`."""

    model_name_or_path: str = dataclasses.field(metadata={"help": "directory of the model, or a checkpoint"})
    output_dir: str = dataclasses.field(metadata={"help": "directory to write; it must be empty or not there"})


def main(argv: Sequence[str] | None = None) -> int:
    """Export as the options say; returns the exit status, 2 for wrong usage with one message on stderr."""
    return run_command(
        "export",
        ExportArguments,
        lambda options: export(options.model_name_or_path, Path(options.output_dir)),
        argv,
    )


def export(source: str, output_dir: Path) -> None:
    """Write encoder, tokenizer, pooling, prompts and settings, and the heads of an M3.

    Raises:
        UsageError: the model cannot be loaded, or sentence-transformers has no form for its settings.
    """
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise UsageError(f"--output_dir {output_dir}: expected an empty directory or a new name")
    problem = checkpoint.weights_defect(Path(source))
    if problem is not None:
        raise UsageError(f"--model_name_or_path {source}: {problem}")
    settings = read_settings(source)
    if settings.icl_suffix_str is not None:
        raise UsageError(
            f"--model_name_or_path {source}: its queries end with a suffix (--icl_suffix_str), for which "
            "sentence-transformers has no place"
        )
    prompts = {
        "query": _prompt("query", settings.query_instruction_for_retrieval, settings.query_instruction_format),
        "document": _prompt("passage", settings.passage_instruction_for_retrieval, settings.passage_instruction_format),
    }
    encoder, tokenizer = load_encoder(source), load_tokenizer(source)
    heads = written_heads(source, encoder, tokenizer)
    longest = max(settings.query_max_len, settings.passage_max_len)
    longest = min(longest, longest_input(encoder) or longest)
    output_dir.mkdir(parents=True, exist_ok=True)
    encoder.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    settings.write(output_dir)
    if heads is not None:  # sentence-transformers does not look at them; FlagEmbedding's M3 does
        heads.write(output_dir)
    for name, content in _files(settings, encoder.config.hidden_size, longest, prompts).items():
        path = output_dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _files(settings: EmbeddingSettings, dim: int, longest: int, prompts: dict[str, str]) -> dict[str, Any]:
    """The files of sentence-transformers, in the form that its versions from 2 on read."""
    places = [place for place in _MODULES if place != "2_Normalize" or settings.normalize_embeddings]
    modules = [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{_MODULES[place]}"}
        for number, place in enumerate(places)
    ]
    modes = {f"pooling_mode_{name}": method == settings.sentence_pooling_method for method, name in _POOLING.items()}
    files: dict[str, Any] = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": dim, **modes},
        "config_sentence_transformers.json": {
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if settings.normalize_embeddings else "dot",
        },
    }
    if settings.normalize_embeddings:
        files["2_Normalize/config.json"] = {}
    return files


def _prompt(kind: str, instruction: str | None, template: str) -> str:
    if instruction is None:
        return ""
    if not template.endswith("{}"):
        raise UsageError(
            f"--{kind}_instruction_format {template!r}: sentence-transformers puts prompts before the text"
        )
    return template.replace("\\n", "\n").format(instruction, "")


if __name__ == "__main__":
    sys.exit(main())
