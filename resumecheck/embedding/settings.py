"""What an embedding model must be used with (pooling, instructions, lengths), as its directory records it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from resumecheck.errors import UsageError

SETTINGS_FILE = "embedding_config.json"
POOLING_METHODS = ("cls", "mean", "last_token")

#: Where sentence-transformers records the pooling, and its names for ours.
_SENTENCE_TRANSFORMERS_FILE = "1_Pooling/config.json"
_SENTENCE_TRANSFORMERS_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last_token",
}
_SENTENCE_TRANSFORMERS_MODES = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}

#: Types of rows whose queries have examples wherever there are any.
_ALWAYS_WITH_EXAMPLES = ("symmetric_sts", "symmetric_clustering", "symmetric_class")


@dataclasses.dataclass(frozen=True)
class EmbeddingSettings:
    """How text becomes an embedding; the fields are the options of the same names."""

    sentence_pooling_method: str = "cls"
    normalize_embeddings: bool = True
    query_max_len: int = 512
    passage_max_len: int = 512
    query_instruction_for_retrieval: str | None = None
    query_instruction_format: str = "{}{}"
    passage_instruction_for_retrieval: str | None = None
    passage_instruction_format: str = "{}{}"
    #: Stands between a query and its answer; None where queries have no examples (see `in_context.py`).
    icl_suffix_str: str | None = None
    retrieval_use_examples: bool = False
    example_query_max_len: int = 64
    example_passage_max_len: int = 96

    @property
    def query_suffix(self) -> str | None:
        """`icl_suffix_str` with its line breaks."""
        return None if self.icl_suffix_str is None else _with_line_breaks(self.icl_suffix_str)

    def has_examples(self, row_type: str | None) -> bool:
        """Whether queries of a type of row have examples: where no retrieval has, symmetric data still does."""
        return self.icl_suffix_str is not None and (self.retrieval_use_examples or row_type in _ALWAYS_WITH_EXAMPLES)

    def query_text(self, query: str, prompt: str | None = None) -> str:
        """The query with its instruction; a `prompt` takes the place of an instruction that is set."""
        instruction = self.query_instruction_for_retrieval
        if instruction is None:
            return query
        return joined(self.query_instruction_format, instruction if prompt is None else prompt, query)

    def passage_text(self, passage: str) -> str:
        """The passage with its instruction."""
        instruction = self.passage_instruction_for_retrieval
        return passage if instruction is None else joined(self.passage_instruction_format, instruction, passage)

    def write(self, directory: Path) -> None:
        """Record the settings in a model directory."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
        (directory / SETTINGS_FILE).write_text(text, encoding="utf-8")


def read_settings(
    directory: str | Path, *, pooling: str = EmbeddingSettings.sentence_pooling_method
) -> EmbeddingSettings:
    """The settings that a model directory records; where it records none, the defaults and `pooling`.

    Raises:
        UsageError: the file cannot be read as settings.
    """
    path = Path(directory) / SETTINGS_FILE
    if not path.is_file():
        recorded = _pooling_of_sentence_transformers(Path(directory))
        return EmbeddingSettings(sentence_pooling_method=recorded or pooling)
    try:
        return EmbeddingSettings(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: not the settings of an embedding model ({error})") from error


def _pooling_of_sentence_transformers(directory: Path) -> str | None:
    path = directory / _SENTENCE_TRANSFORMERS_FILE
    if path.is_file():
        try:
            recorded = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: not the pooling of a sentence-transformers model ({error})") from error
        if "pooling_mode" in recorded:  # since version 6; before, there was a flag for each method
            mode = recorded["pooling_mode"]
            if mode not in _SENTENCE_TRANSFORMERS_MODES:
                raise UsageError(f"{path}: the pooling {mode!r} is not known; give --sentence_pooling_method")
            return _SENTENCE_TRANSFORMERS_MODES[mode]
        for name, method in _SENTENCE_TRANSFORMERS_NAMES.items():
            if recorded.get(name):
                return method
    return None


def joined(template: str, instruction: str, text: str) -> str:
    """Instruction and text, as a template with two `{}` says."""
    return _with_line_breaks(template).format(instruction, text)


def _with_line_breaks(text: str) -> str:
    # A command line cannot hold a line break, so `\n` means one.
    return text.replace("\\n", "\n")
