"""Decoders see the token of the end at the end of every text, cut or not, wherever the model is used."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from resumecheck.cli import main
from resumecheck.embedding.arguments import parse_train_arguments
from resumecheck.embedding.embedder import load_embedder
from resumecheck.embedding.end_of_text import end_texts
from resumecheck.embedding.model import encode, load_tokenizer
from resumecheck.embedding.train import build_trainer
from tests.embedding import tiny

BEGIN, END, UNKNOWN = 1, 2, 0
SPECIAL = ["<unk>", "<s>", "</s>"]
IDS = {word: 3 + place for place, word in enumerate([*tiny.WORDS, "mate", ":"])}

#: How a tokenizer treats a text before it is told of the end -> the tokens that it puts before it.
RULES = {
    "nothing": (None, []),
    "a first token": (
        processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", BEGIN)]
        ),
        [BEGIN],
    ),
    "offsets, and a first token": (
        processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=True),
                processors.TemplateProcessing(single="<s> $A", pair="$A $B", special_tokens=[("<s>", BEGIN)]),
            ]
        ),
        [BEGIN],
    ),
    "offsets": (processors.ByteLevel(trim_offsets=False), []),
}  # fmt: skip


def write_tokenizer(directory, rule, **facts):
    """A tokenizer of whole words whose token to pad with is that of the end."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({**{name: place for place, name in enumerate(SPECIAL)}, **IDS}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(SPECIAL)
    if rule is not None:
        backend.post_processor = rule
    given = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", **facts}
    names = ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **given).save_pretrained(directory)
    return directory


@pytest.fixture(params=list(RULES))
def decoder(request, tmp_path):
    """A decoder's directory, and the tokens that it puts before a text."""
    directory = tiny.write_decoder(tmp_path / "decoder")
    for stale in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (directory / stale).unlink(missing_ok=True)
    rule, first = RULES[request.param]
    return write_tokenizer(directory, rule), first


def expected(text, first, longest):
    """Words to numbers by hand: as many as there is room for between what stands first and the end."""
    words = [IDS[word] for word in text.split()]
    return [*first, *words[: longest - len(first) - 1], END]


def read(tokens):
    """The tokens of each text without padding."""
    rows = zip(tokens["input_ids"].tolist(), tokens["attention_mask"].tolist(), strict=True)
    return [[token for token, counts in zip(*row, strict=True) if counts] for row in rows]


TEXTS = [*tiny.texts(5, seed=3), " ".join(tiny.WORDS[:30]), "ba"]


def test_each_text_of_training_ends_with_it_and_is_cut_before_it(decoder, data, tmp_path):
    directory, first = decoder
    given = {"lora_rank": 2, "query_max_len": 6, "passage_max_len": 8}
    trainer = build_trainer(*parse_train_arguments(tiny.train_options(directory, data, tmp_path / "out", **given)))
    batch = next(iter(trainer.get_train_dataloader()))
    rows = {row["query"]: row for row in map(json.loads, data.read_text().splitlines())}
    queries, passages = read(batch["queries"]), read(batch["passages"])
    assert {tuple(tokens) for tokens in queries} <= {tuple(expected(query, first, 6)) for query in rows}
    known = {tuple(expected(text, first, 8)) for row in rows.values() for text in (*row["pos"], *row["neg"])}
    assert {tuple(tokens) for tokens in passages} <= known
    assert max(map(len, queries)) == 6
    assert max(map(len, passages)) == 8


def test_queries_with_examples_keep_suffix_and_end(decoder, tmp_path):
    from resumecheck.embedding.in_context import Example, asked
    from resumecheck.embedding.settings import EmbeddingSettings

    directory, first = decoder
    tokenizer = load_tokenizer(str(directory))
    end_texts(tokenizer)
    settings = EmbeddingSettings(icl_suffix_str=r"\nmate :", example_query_max_len=2, example_passage_max_len=3)
    examples = [Example("ba be bi", "da de di do")]
    longest = 512 + 12
    text = asked(tokenizer, settings, " ".join(tiny.WORDS * 20), longest, examples)
    tokens = tokenizer(text, max_length=longest, truncation=True)["input_ids"]
    suffix = [IDS["mate"], IDS[":"]]
    shown = [IDS["ba"], IDS["be"], *suffix, IDS["da"], IDS["de"], IDS["di"]]
    words = [IDS[word] for word in tiny.WORDS * 20]
    room = longest - len(first) - len(shown) - len(suffix) - 1
    assert tokens == [*first, *shown, *words[:room], *suffix, END]


@pytest.fixture
def trained(decoder, data, tmp_path):
    """The directory of a merged model that was trained for a step, and what it puts before a text."""
    directory, first = decoder
    given = {"lora_rank": 2, "max_steps": 1, "query_max_len": 8, "passage_max_len": 8, "save_merged_lora_model": True}
    assert main(["train", *tiny.train_options(directory, data, tmp_path / "trained", **given)]) == 0
    return tmp_path / "trained", first


def vectors_by_hand(directory, first, longest):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(directory).eval()
    found = []
    with torch.inference_mode():
        for text in TEXTS:
            ids = torch.tensor([expected(text, first, longest)])
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            found.append(torch.nn.functional.normalize(hidden[:, -1], dim=-1))
    return torch.cat(found)


@pytest.mark.slow
def test_the_vector_is_that_of_the_end_in_use_and_in_what_is_exported(trained, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    directory, first = trained
    embedder = load_embedder(str(directory))
    assert embedder.settings.sentence_pooling_method == "last_token"
    ours = encode(embedder.model, embedder.tokenizer, TEXTS, longest=8, batch_size=1)
    assert torch.equal(ours, vectors_by_hand(directory, first, 8))
    torch.testing.assert_close(embedder.passages(TEXTS, batch_size=4), ours, rtol=1e-5, atol=1e-6)
    assert main(["export", "--model_name_or_path", str(directory), "--output_dir", str(tmp_path / "exported")]) == 0
    exported = sentence_transformers.SentenceTransformer(str(tmp_path / "exported"), device="cpu")
    assert torch.equal(exported.encode(TEXTS, convert_to_tensor=True, batch_size=1), ours)


def test_the_rule_is_written_with_the_tokenizer_and_is_not_put_on_twice(decoder, tmp_path):
    directory, first = decoder
    tokenizer = load_tokenizer(str(directory))
    assert tokenizer("ba be")["input_ids"] == [*first, IDS["ba"], IDS["be"]]
    assert end_texts(tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(str(tmp_path / "saved"))
    for one in (tokenizer, again):
        assert end_texts(one)
        assert one("ba be")["input_ids"] == [*first, IDS["ba"], IDS["be"], END]
        assert one("ba be", add_special_tokens=False)["input_ids"] == [IDS["ba"], IDS["be"]]
        assert one("ba", "be")["input_ids"].count(END) == 2


def test_without_such_a_token_and_for_encoders_nothing_is_changed(encoder, data, tmp_path):
    tokenizer = load_tokenizer(str(encoder))
    before = tokenizer.backend_tokenizer.to_str()
    assert not end_texts(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before
    directory = tiny.write_encoder(tmp_path / "encoder")
    write_tokenizer(directory, None)
    trainer = build_trainer(*parse_train_arguments(tiny.train_options(directory, data, tmp_path / "out")))
    assert not any(END in tokens for tokens in read(next(iter(trainer.get_train_dataloader()))["queries"]))


def test_a_decoder_of_others_is_used_with_the_tokenizer_that_it_has(decoder):
    directory, first = decoder
    embedder = load_embedder(str(directory))
    assert embedder.tokenizer("ba")["input_ids"] == [*first, IDS["ba"]]
