"""Decoders read a text to its end: the token of the end stands last, and its vector is the embedding.

FlagEmbedding asks the tokenizer of every decoder for it (`add_eos_token=True`) and leaves it at that; how a tokenizer
follows depends on its class and on the version of transformers, which may drop the first token for it or do nothing.
Here the rule by which tokens are put around a text is changed, which is written with the tokenizer: whoever loads the
trained model has it too. A text that is too long is cut before its end, never the end itself.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import processors


def end_texts(tokenizer: Any) -> bool:
    """Let every text end with the tokenizer's `eos_token`; whether it does.

    A tokenizer that does so already, or has no such token, stays as it is.
    """
    end = tokenizer.eos_token_id
    if end is None or tokenizer("")["input_ids"][-1:] == [end]:
        return end is not None
    tokenizer.init_kwargs["add_eos_token"] = True  # transformers before 5 makes the rule anew when it loads one
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        tokenizer.add_eos_token = True  # what the others understand, if anything
    else:
        backend.post_processor = _with_end(backend, str(tokenizer.eos_token), end)
    return tokenizer("")["input_ids"][-1:] == [end]


def _with_end(backend: Any, token: str, end: int) -> Any:
    """The rules of a tokenizer, with the token of the end after each text."""
    rules = json.loads(backend.to_str())["post_processor"]
    parts = [] if rules is None else rules["processors"] if rules["type"] == "Sequence" else [rules]
    template = next((part for part in parts if part["type"] == "TemplateProcessing"), _PLAIN)
    others = [part for part in parts if part["type"] == "ByteLevel"]  # they move offsets, and put no tokens
    special = [
        (name, place)
        for entry in template["special_tokens"].values()
        for name, place in zip(entry["tokens"], entry["ids"], strict=True)
    ]
    made = processors.TemplateProcessing(
        single=_pieces(template["single"], token),
        pair=_pieces(template["pair"], token),
        special_tokens=[*special, (token, end)],
    )
    kept = [
        processors.ByteLevel(
            add_prefix_space=part["add_prefix_space"], trim_offsets=part["trim_offsets"], use_regex=part["use_regex"]
        )
        for part in others
    ]
    return processors.Sequence([*kept, made]) if kept else made


#: A text, and a pair of texts, with nothing around them, as the file of a tokenizer has it.
_PLAIN: dict[str, Any] = {
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}


def _pieces(template: list[dict[str, Any]], token: str) -> list[str]:
    """A template as `TemplateProcessing` takes it, with the token after each text in it."""
    found: list[str] = []
    for piece in template:
        ((kind, facts),) = piece.items()
        found.append(f"{'$' if kind == 'Sequence' else ''}{facts['id']}:{facts['type_id']}")
        if kind == "Sequence":
            found.append(f"{token}:{facts['type_id']}")
    return found
