"""In-context examples: a pure function of (seed, epoch, row), in FlagEmbedding's form, and exact on resume."""

import collections
import dataclasses
import functools
import json
import re

import pytest
import torch

from resumecheck.embedding import draws
from resumecheck.embedding.collator import Collator
from resumecheck.embedding.dataset import load_train_dataset
from resumecheck.embedding.embedder import load_embedder
from resumecheck.embedding.in_context import Example, asked
from resumecheck.embedding.model import load_tokenizer
from resumecheck.embedding.sampler import SampleId
from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.embedding.train import main
from resumecheck.errors import UsageError
from tests.embedding import targets, tiny

SETTINGS = EmbeddingSettings(
    query_max_len=600,
    passage_max_len=20,
    query_instruction_for_retrieval="find",
    query_instruction_format="{}: {}",
    icl_suffix_str=r"\nmate",
    retrieval_use_examples=True,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(str(tiny.write_encoder(tmp_path_factory.mktemp("tokenizer"))))


@pytest.fixture
def load(tmp_path):
    """The data set of files with these rows."""

    def make(*files, settings=SETTINGS, **changes):
        paths = [tiny.write_rows(tmp_path / f"{place}.jsonl", rows) for place, rows in enumerate(files)]
        given = {"group_size": 2, "seed": 3, "cache_path": str(tmp_path / "cache"), **changes}
        return load_train_dataset([str(path) for path in paths], settings, **given)

    return make


# --- which rows are examples -----------------------------------------------------------------------------------------


def test_examples_are_other_rows_of_the_same_file_with_the_positive_that_they_have_in_this_epoch(load):
    dataset = load(tiny.rows(9, seed=1), tiny.rows(12, seed=2))
    for epoch in (0, 1):
        samples = [dataset[SampleId(epoch, row)] for row in range(21)]
        pairs = [Example(sample.query, sample.passages[0]) for sample in samples]
        for row, sample in enumerate(samples):
            own_file = pairs[:9] if row < 9 else pairs[9:]
            assert set(sample.examples) <= set(own_file) - {pairs[row]}
            assert len(set(sample.examples)) == len(sample.examples)


def test_none_to_five_examples_are_equally_likely(load):
    dataset = load(tiny.rows(30))
    counts = collections.Counter(
        len(dataset[SampleId(epoch, row)].examples) for epoch in range(40) for row in range(30)
    )
    assert counts.keys() == set(range(6))
    assert all(150 < count < 250 for count in counts.values())  # 200 are expected, their deviation is 13


def test_every_other_row_is_an_example_as_often(load):
    dataset = load(tiny.rows(6))
    queries = [dataset[SampleId(0, row)].query for row in range(6)]
    found = collections.Counter(
        (row, queries.index(example.query))
        for epoch in range(200)
        for row in range(6)
        for example in dataset[SampleId(epoch, row)].examples
    )
    assert found.keys() == {(row, other) for row in range(6) for other in range(6) if row != other}
    assert all(70 < count < 130 for count in found.values())  # 100 are expected, their deviation is 7


def test_which_row_is_the_first_example_does_not_depend_on_how_many_there_are(load):
    dataset = load(tiny.rows(7))  # six others, as there are six numbers of examples
    queries = [dataset[SampleId(0, row)].query for row in range(7)]
    found = [dataset[SampleId(epoch, 0)].examples for epoch in range(200)]
    for count in range(1, 6):
        firsts = {queries.index(examples[0].query) for examples in found if len(examples) == count}
        assert firsts == set(range(1, 7))


def test_the_examples_of_a_row_depend_on_seed_and_epoch_and_on_nothing_else(load):
    dataset, again = load(tiny.rows(20)), load(tiny.rows(20))
    ids = [SampleId(epoch, row) for epoch in (0, 1) for row in range(20)]
    found = {name: dataset[name].examples for name in ids}
    assert {name: again[name].examples for name in reversed(ids)} == found
    assert [found[SampleId(0, row)] for row in range(20)] != [found[SampleId(1, row)] for row in range(20)]
    assert {name: load(tiny.rows(20), seed=4)[name].examples for name in ids} != found


def test_rows_that_are_left_out_are_no_examples(load):
    dataset = load(tiny.rows(20, seed=1), tiny.rows(3, seed=2), max_examples=4)
    queries = [dataset[SampleId(0, row)].query for row in range(7)]
    for epoch in range(20):
        for row in range(7):
            allowed = set(queries[:4] if row < 4 else queries[4:]) - {queries[row]}
            assert {example.query for example in dataset[SampleId(epoch, row)].examples} <= allowed


def test_a_row_alone_in_its_file_has_no_examples(load):
    dataset = load(tiny.rows(1), tiny.rows(3, seed=5))
    assert not any(dataset[SampleId(epoch, 0)].examples for epoch in range(20))
    assert max(len(dataset[SampleId(epoch, 1)].examples) for epoch in range(20)) == 2


def test_symmetric_data_has_examples_where_retrieval_has_none(load):
    settings = EmbeddingSettings(icl_suffix_str="mate", retrieval_use_examples=False)
    for kind in (None, "normal", "symmetric_sts", "symmetric_class"):
        dataset = load([{**row, "type": kind} for row in tiny.rows(9)], settings=settings)
        some = any(dataset[SampleId(epoch, 0)].examples for epoch in range(10))
        assert some == (kind in ("symmetric_sts", "symmetric_class")), kind


def test_the_answer_of_a_row_for_clustering_is_its_category(load, tmp_path):
    rows = [{**row, "type": "symmetric_clustering", "category": "lu"} for row in tiny.rows(9)]
    dataset = load(rows)
    answers = {example.answer for row in range(9) for example in dataset[SampleId(0, row)].examples}
    assert answers == {"lu"}
    del rows[4]["category"]
    with pytest.raises(UsageError, match=r"0\.jsonl:5: category: expected a text, found nothing"):
        load(rows)
    assert len(load(rows, settings=EmbeddingSettings())) == 9


def test_drawing_without_putting_back_reaches_every_order_once():
    words = [(first, second, third) for first in range(3) for second in range(2) for third in range(1)]
    found = [tuple(draws.distinct(torch.tensor(drawn).numpy(), 3)) for drawn in words]
    assert sorted(found) == [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


# --- what the model sees ---------------------------------------------------------------------------------------------


def test_a_query_stands_between_its_examples_and_the_suffix(tokenizer):
    examples = [Example("find: ba", "da"), Example("find: be", "de di")]
    expected = "find: ba\nmateda\n\nfind: be\nmatede di\n\nfind: bo bu\nmate"
    assert asked(tokenizer, SETTINGS, "find: bo bu", 600, examples) == expected
    assert asked(tokenizer, SETTINGS, "find: bo bu", 600) == "find: bo bu\nmate"
    assert asked(tokenizer, EmbeddingSettings(), "bo bu", 600, examples) == "bo bu"


def test_examples_are_cut_to_their_own_lengths(tokenizer):
    settings = EmbeddingSettings(icl_suffix_str=" ma ", example_query_max_len=3, example_passage_max_len=2)
    example = Example("ba be bi bo bu", "da de di do")
    assert asked(tokenizer, settings, "fa", 600, [example]) == "ba be bi ma da de\n\nfa ma "


def test_examples_leave_512_tokens_to_the_query(tokenizer):
    examples = [Example(name, "da") for name in ("ba", "be", "bi", "bo")]
    settings = EmbeddingSettings(icl_suffix_str=" ma ")
    # An example is 3 tokens, and a text has one before and one after it.
    for room, fitting in ((4, 0), (5, 1), (7, 1), (8, 2), (14, 4)):
        before = "".join(f"{example.query} ma da\n\n" for example in examples[:fitting])
        assert asked(tokenizer, settings, "fa", 512 + room, examples) == f"{before}fa ma "
    # The first that does not fit is the last that is looked at.
    assert asked(tokenizer, settings, "fa", 512 + 5, [Example("ba be", "da"), *examples]) == "fa ma "


def test_the_suffix_of_a_long_query_is_not_cut_off(tokenizer):
    settings = EmbeddingSettings(query_max_len=8, icl_suffix_str=" ma mi")
    text = asked(tokenizer, settings, " ".join(tiny.WORDS[:30]), 8)
    assert text == " ".join(tiny.WORDS[:4]) + " ma mi"
    assert len(tokenizer(text)["input_ids"]) == 8


def test_passages_that_are_queries_have_the_suffix_and_others_do_not(load, tokenizer):
    for kind, suffixed in (("symmetric_sts", True), ("symmetric_class", False), (None, False)):
        dataset = load([{**row, "type": kind} for row in tiny.rows(4)])
        batch = Collator(tokenizer, SETTINGS)([dataset[SampleId(0, row)] for row in range(4)])
        ends = ["mate" in text for text in tokenizer.batch_decode(batch["passages"]["input_ids"])]
        # `mate` is one word of two pieces, at the end of a text.
        assert ends == [suffixed] * len(ends)
        assert all("mate" in text for text in tokenizer.batch_decode(batch["queries"]["input_ids"]))


def test_a_trained_model_embeds_queries_with_the_suffix_that_it_was_trained_with(tmp_path):
    directory = tiny.write_decoder(tmp_path / "model")
    settings = EmbeddingSettings(sentence_pooling_method="last_token", query_max_len=9, icl_suffix_str=" mate")
    settings.write(directory)
    embedder = load_embedder(str(directory))
    texts = ["ba be bi", " ".join(tiny.WORDS[:20])]
    vectors = embedder.queries(texts, batch_size=2)
    seen = ["ba be bi mate", " ".join(tiny.WORDS[:5]) + " mate"]
    assert torch.equal(vectors, embedder.passages(seen, batch_size=2))
    EmbeddingSettings(sentence_pooling_method="last_token", query_max_len=9).write(directory)
    assert not torch.equal(load_embedder(str(directory)).queries(texts, batch_size=2), vectors)


# --- in use ----------------------------------------------------------------------------------------------------------


TASK = [{"query": "ba be", "response": "bi bo"}, {"instruct": "seek", "query": "da", "response": " ".join(tiny.WORDS)}]


@pytest.fixture
def model(tmp_path):
    """A decoder trained with examples, as far as its directory says."""
    directory = tiny.write_decoder(tmp_path / "model")
    facts = {"sentence_pooling_method": "last_token", "example_query_max_len": 9, "example_passage_max_len": 3}
    dataclasses.replace(SETTINGS, **facts).write(directory)
    return directory


def test_examples_in_use_have_the_form_of_training(model, tmp_path):
    (tmp_path / "examples.json").write_text(json.dumps(TASK))
    seen = "find: ba be\nmate" + "bi bo\n\n" + "seek: da\nmate" + " ".join(tiny.WORDS[:3]) + "\n\nfind: fa\nmate"
    expected = None
    for given in (json.dumps(TASK), str(tmp_path / "examples.json")):
        embedder = load_embedder(str(model), given)
        vectors = embedder.queries(["fa"], batch_size=1)
        expected = load_embedder(str(model), passage_max_len=600).passages([seen], batch_size=1)
        assert torch.equal(vectors, expected)
    assert not torch.equal(load_embedder(str(model)).queries(["fa"], batch_size=1), expected)


def test_evaluate_and_mine_put_the_examples_before_each_query(model, data, tmp_path, monkeypatch):
    from resumecheck.embedding import embedder, evaluate, mine

    tiny.write_rows(tmp_path / "corpus.jsonl", [{"_id": "p", "text": "ba"}])
    tiny.write_rows(tmp_path / "queries.jsonl", [{"_id": "q", "text": "fa"}])
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\tp\t1\n")
    seen, encode = [], embedder.encode
    monkeypatch.setattr(embedder, "encode", lambda *a, **k: (seen.append(list(a[2])), encode(*a, **k))[1])
    task = ["--examples_for_task", json.dumps(TASK)]
    files = [
        f"--{name}={tmp_path / name}.{'tsv' if name == 'qrels' else 'jsonl'}" for name in ("corpus", "queries", "qrels")
    ]
    assert evaluate.main(["--model_name_or_path", str(model), *files, *task]) == 0
    files = [f"--input_file={data}", f"--output_file={tmp_path / 'mined.jsonl'}", f"--embedder_name_or_path={model}"]
    assert mine.main([*files, *task]) == 0
    passages, asked_for, mined_for, _ = seen
    assert passages == ["ba"]
    assert all(text.startswith("find: ba be\nmatebi bo\n\nseek: da\nmate") for text in (*asked_for, *mined_for))
    assert len(mined_for) == tiny.ROWS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere.json", "--examples_for_task nowhere.json: no such file, and no JSON list"),
        ("[{", "--examples_for_task: not JSON"),
        ("[]", "--examples_for_task: expected a list of at least one example"),
        ('[{"query": "ba"}]', "--examples_for_task: example 1: expected texts as `query` and `response`"),
        (json.dumps(TASK * 9), "--examples_for_task: 10 of 18 examples fit, since 512 of the 600 tokens"),
    ],
)
def test_examples_that_cannot_be_used_are_named(model, given, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        load_embedder(str(model), given)


def test_a_model_that_knows_no_examples_is_given_none(tmp_path):
    with pytest.raises(UsageError, match="--examples_for_task: the model was trained without examples"):
        load_embedder(str(tiny.write_decoder(tmp_path / "model")), json.dumps(TASK))


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"retrieval_use_examples": True},
            "--query_max_len 12: no example would fit, 512 tokens are left to the query",
        ),
        ({"icl_suffix_str": "x"}, "--query_max_len 12: no example would fit"),
        ({"example_query_max_len": 3}, "--example_query_max_len and --example_passage_max_len have no effect without"),
        ({"example_passage_max_len": 0}, "--example_passage_max_len 0: expected 1 or more"),
        (
            {"retrieval_use_examples": False, "query_max_len": 3, "icl_suffix_str": "ba"},
            "--query_max_len 3: --icl_suffix_str and the tokens around a text are 3 tokens",
        ),
    ],
)
def test_options_that_cannot_be_used_are_named(encoder, data, tmp_path, capsys, changes, message):
    assert main(tiny.train_options(encoder, data, tmp_path / "out", **changes)) == 2
    assert message in capsys.readouterr().err


def test_the_suffix_is_recorded_with_the_model_and_its_default_is_flagembeddings(tmp_path):
    from resumecheck.embedding.arguments import parse_train_arguments, settings_of

    def settings(**changes):
        given = tiny.train_options(tmp_path / "model", tmp_path / "data", tmp_path / "out", **changes)
        _, data, training = parse_train_arguments(given)
        return settings_of(data, training, "last_token")

    assert settings().query_suffix is None
    chosen = settings(retrieval_use_examples=True, query_max_len=600)
    assert (chosen.query_suffix, chosen.retrieval_use_examples) == ("\nResponse:", True)
    chosen = settings(retrieval_use_examples=False, icl_suffix_str=r"\n<response>")
    assert (chosen.query_suffix, chosen.retrieval_use_examples) == ("\n<response>", False)


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("in_context")
    tiny.write_decoder(directory / "encoder")
    for seed, (name, fields, count) in enumerate([("a", {}, 18), ("b", {"type": "symmetric_sts"}, 12)]):
        rows = [{**row, **fields} for row in tiny.rows(count, seed=seed)]
        tiny.write_rows(directory / "files" / f"{name}.jsonl", rows)
    return directory


def target(factory, directory, **changes):
    return functools.partial(
        factory,
        directory=str(directory),
        train_data=str(directory / "files"),
        cache_path=str(directory / "cache"),
        query_max_len=560,
        retrieval_use_examples=True,
        icl_suffix_str=r"\nmate",
        lora_rank=2,
        gradient_accumulation_steps=1,
        max_steps=9,
        **changes,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"dataloader_num_workers": 2},
        {"same_dataset_within_batch": True, "dataloader_num_workers": 2},
        {"same_dataset_within_batch": True, "sub_batch_size": 3},
    ],
)
def test_a_resume_is_exact(workbench, directory, changes):
    # An epoch has 8 mixed batches, or 4 + 6 of one file each.
    verdict = workbench.verify(target(targets.build, directory, **changes), at=[3, 8])
    assert verdict.equivalent, verdict.to_json()


@pytest.mark.slow
def test_examples_from_a_global_stream_are_found(workbench, directory):
    verdict = workbench.verify(target(targets.build_with_global_examples, directory), at=[3])
    (point,) = verdict.resume_points
    assert verdict.verdict == "diverged"
    assert (point.first_divergence.step, point.first_divergence.component) == (4, "data-content")
