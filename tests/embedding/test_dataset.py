import json
import pickle
from pathlib import Path

import pytest

from resumecheck.embedding.dataset import Sample, load_train_dataset
from resumecheck.embedding.rows import find_files, read_rows
from resumecheck.embedding.sampler import SampleId
from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.errors import UsageError
from tests.embedding import tiny

EXAMPLES = Path(__file__).parents[3] / "shared" / "data" / "flagembedding_example"


def load(path, *, group_size=3, seed=3, settings=None, **changes):
    settings = settings or EmbeddingSettings()
    cache = changes.pop("cache_path", str(Path(path).parent / "cache"))
    return load_train_dataset([str(path)], settings, group_size=group_size, seed=seed, cache_path=cache, **changes)


@pytest.fixture
def one_row(tmp_path):
    def write(**fields):
        row = {"query": "a question", "pos": ["an answer"], "neg": ["another"], **fields}
        return tiny.write_rows(tmp_path / "rows.jsonl", [row])

    return write


# --- a sample is a pure function of (seed, epoch, row) ---------------------------------------------------------------


def test_a_sample_does_not_depend_on_what_was_asked_for_before(data):
    import random

    import numpy as np

    first, second = load(data), load(data)
    backwards = [first[SampleId(1, row)] for row in reversed(range(tiny.ROWS))]
    random.seed(1), np.random.seed(1)
    assert [second[SampleId(1, row)] for row in range(tiny.ROWS)] == backwards[::-1]


def test_a_sample_is_the_same_in_a_worker_process(data):
    dataset = load(data)
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy[SampleId(0, row)] for row in range(5)] == [dataset[SampleId(0, row)] for row in range(5)]


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 1}])
def test_seed_and_epoch_each_change_the_samples(data, change):
    def samples(seed=3, epoch=0):
        dataset = load(data, seed=seed)
        return [dataset[SampleId(epoch, row)] for row in range(tiny.ROWS)]

    assert samples(**change) != samples()


def test_a_sample_is_the_query_one_positive_and_distinct_negatives(data):
    rows, dataset = tiny.rows(tiny.ROWS), load(data, group_size=5)
    for number, row in enumerate(rows):
        sample = dataset[SampleId(0, number)]
        assert sample.query == row["query"]
        assert sample.passages[0] in row["pos"]
        assert len(set(sample.passages[1:])) == 4
        assert set(sample.passages[1:]) <= set(row["neg"])


def test_every_positive_and_negative_is_chosen_in_some_epoch(data):
    row, dataset = tiny.rows(1)[0], load(data)
    seen = {text for epoch in range(40) for text in dataset[SampleId(epoch, 0)].passages}
    assert seen == {*row["pos"], *row["neg"]}


def test_too_few_negatives_are_given_several_times(one_row):
    sample = load(one_row(neg=["x", "y"]), group_size=6)[SampleId(0, 0)]
    assert sorted(sample.passages[1:]) in (["x", "x", "x", "y", "y"], ["x", "x", "y", "y", "y"])


def test_a_group_of_one_needs_no_negatives(one_row):
    assert load(one_row(neg=[]), group_size=1)[SampleId(0, 0)] == Sample("a question", ["an answer"])


# --- instructions ----------------------------------------------------------------------------------------------------


def test_instructions_are_put_before_queries_and_passages(one_row):
    settings = EmbeddingSettings(
        query_instruction_for_retrieval="Find",
        query_instruction_format="{}:\\n{}",
        passage_instruction_for_retrieval="Text",
        passage_instruction_format="{} {}",
    )
    sample = load(one_row(), settings=settings, group_size=2)[SampleId(0, 0)]
    assert sample == Sample("Find:\na question", ["Text an answer", "Text another"])


def test_the_prompt_of_a_row_takes_the_place_of_the_instruction(one_row):
    settings = EmbeddingSettings(query_instruction_for_retrieval="Find", query_instruction_format="{} {}")
    assert load(one_row(prompt="Seek"), settings=settings, group_size=1)[SampleId(0, 0)].query == "Seek a question"


def test_without_an_instruction_a_prompt_is_not_used(one_row):
    assert load(one_row(prompt="Seek"), group_size=1)[SampleId(0, 0)].query == "a question"


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_files_of_a_directory_are_read_in_sorted_order_at_any_depth(tmp_path):
    for name in ("b.jsonl", "a/z.jsonl", "c.json", "a/a.jsonl", "notes.txt"):
        tiny.write_rows(tmp_path / "data" / name, tiny.rows(1))
    found = find_files([str(tmp_path / "data")])
    assert [file.path.relative_to(tmp_path / "data").as_posix() for file in found] == [
        "a/a.jsonl",
        "a/z.jsonl",
        "b.jsonl",
        "c.json",
    ]


def test_several_files_are_one_data_set_in_the_order_given(tmp_path):
    paths = [
        str(tiny.write_rows(tmp_path / f"{name}.jsonl", tiny.rows(2, seed=seed))) for seed, name in enumerate("ba")
    ]
    dataset = load_train_dataset(paths, EmbeddingSettings(), group_size=1, seed=0, cache_path=str(tmp_path / "cache"))
    expected = [row["query"] for seed in range(2) for row in tiny.rows(2, seed=seed)]
    assert [dataset[SampleId(0, row)].query for row in range(4)] == expected


def test_the_fingerprint_follows_the_content(one_row):
    before = load(one_row()).fingerprint
    assert before == load(one_row()).fingerprint
    assert before[0]["name"] == "rows.jsonl"
    assert before != load(one_row(query="another question")).fingerprint


def test_changed_files_are_read_again(one_row):
    load(one_row())
    assert load(one_row(query="another question"), group_size=1)[SampleId(0, 0)].query == "another question"


def test_empty_lines_are_no_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + json.dumps(tiny.rows(1)[0]) + "\n\n")
    assert len(load(path)) == 1


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason=f"the example files of FlagEmbedding are not in {EXAMPLES}")
def test_the_example_files_of_flagembedding_are_read(tmp_path):
    dataset = load_train_dataset(
        [str(EXAMPLES)], EmbeddingSettings(), group_size=4, seed=0, cache_path=str(tmp_path / "cache")
    )
    assert len(dataset) == 80
    samples = [dataset[SampleId(0, row)] for row in range(80)]
    found = {}
    for sample, row in zip(samples, dataset.rows, strict=True):
        found.setdefault(row["type"], set()).add((len(sample.passages), sample.own_group_only))
    assert found == {
        "normal": {(4, False)},
        "only_1neg": {(2, False)},
        "symmetric_class": {(4, True)},
        "symmetric_clustering": {(4, True)},
        "symmetric_sts": {(4, False)},
    }
    nli = next(row for row in range(80) if dataset.rows[row]["neg_scores"])
    assert len(dataset.rows[nli]["neg_scores"]) == len(dataset.rows[nli]["neg"])


@pytest.mark.parametrize(
    ("file", "given", "marked"),
    [
        ("topics-no_in_batch_neg/a.jsonl", "", True),
        ("topics-no_in_batch_neg/deep/a.jsonl", "", True),
        ("topics-no_in_batch_neg/a.jsonl", "topics-no_in_batch_neg/a.jsonl", True),
        ("plain/a_no_in_batch_neg.jsonl", "plain/a_no_in_batch_neg.jsonl", True),
        ("plain/a.jsonl", "plain", False),
        ("no_in_batch_neg_not/a.jsonl", "no_in_batch_neg_not", False),
    ],
)
def test_a_mark_in_the_name_of_a_file_or_directory_goes_with_its_samples(tmp_path, file, given, marked):
    tiny.write_rows(tmp_path / "data" / file, tiny.rows(1))
    dataset = load_train_dataset(
        [str(tmp_path / "data" / given)], EmbeddingSettings(), group_size=2, seed=0, cache_path=str(tmp_path / "cache")
    )
    assert dataset[SampleId(0, 0)].own_group_only is marked


def test_a_row_type_marks_its_row_alone(tmp_path):
    path = tiny.write_rows(tmp_path / "a.jsonl", [{**tiny.rows(1)[0], "type": "no_in_batch_neg"}, *tiny.rows(1)])
    assert [load(path)[SampleId(0, row)].own_group_only for row in range(2)] == [True, False]


# --- row types and what is drawn -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "group"),
    [
        ({}, 4),
        ({"type": "normal", "train_group_size": 2}, 4),
        ({"train_group_size": 2}, 2),
        ({"train_group_size": 9}, 9),
        ({"type": "only_1neg"}, 2),
        ({"type": "symmetric_class"}, 4),
        ({"type": "symmetric_class", "neg": ["x", "y"]}, 3),
        ({"type": "symmetric_class", "neg": []}, 1),
        ({"type": "symmetric_sts"}, 4),
    ],
)
def test_the_size_of_a_group_follows_type_and_row(one_row, fields, group):
    row = {"neg": list("abcdef"), **fields}
    assert len(load(one_row(**row), group_size=4)[SampleId(0, 0)].passages) == group


@pytest.mark.parametrize("kind", ["symmetric_sts", "symmetric_clustering"])
def test_passages_of_symmetric_data_get_the_instruction_of_queries(one_row, kind):
    settings = EmbeddingSettings(
        query_instruction_for_retrieval="Find",
        query_instruction_format="{} {}",
        passage_instruction_for_retrieval="Text",
        passage_instruction_format="{} {}",
    )
    sample = load(one_row(type=kind, prompt="Group"), settings=settings, group_size=2)[SampleId(0, 0)]
    assert sample[:2] == ("Group a question", ["Group an answer", "Group another"])
    sample = load(one_row(type="symmetric_class", prompt="Group"), settings=settings, group_size=2)[SampleId(0, 0)]
    assert sample[:2] == ("Group a question", ["Text an answer", "Text another"])


def test_a_share_of_the_long_positives_is_shuffled_in_thirds(tmp_path):
    text = "".join(f"{number:03}" for number in range(40))
    path = tiny.write_rows(tmp_path / "rows.jsonl", [{"query": "q", "pos": [text], "neg": [text]}] * 300)
    thirds = {text[:41], text[41:82], text[82:]}

    def positives(ratio, epoch=0):
        dataset = load(path, shuffle_ratio=ratio)
        samples = [dataset[SampleId(epoch, row)] for row in range(300)]
        assert {sample.passages[1] for sample in samples} == {text}
        return [sample.passages[0] for sample in samples]

    assert set(positives(0.0)) == {text}
    assert all(set(found.split(" ")) == thirds for found in positives(1.0))
    assert len(set(positives(1.0))) == 6
    assert 60 < sum(found != text for found in positives(0.3)) < 120
    assert positives(0.3) == positives(0.3) != positives(0.3, epoch=1)


def test_a_short_text_is_never_shuffled(one_row):
    assert load(one_row(pos=["x" * 100]), shuffle_ratio=1.0)[SampleId(0, 0)].passages[0] == "x" * 100


def test_at_most_so_many_rows_of_each_file_are_trained_on(tmp_path):
    for name, count in (("a", 20), ("b", 3)):
        tiny.write_rows(tmp_path / "data" / f"{name}.jsonl", [{**row, "prompt": name} for row in tiny.rows(count)])

    def kept(**changes):
        dataset = load(tmp_path / "data", max_examples=5, cache_path=str(tmp_path / "cache"), **changes)
        return [(row["prompt"], row["query"]) for row in dataset.rows]

    queries = [row["query"] for row in tiny.rows(20)]
    found = [queries.index(query) for name, query in kept() if name == "a"]
    assert [name for name, _ in kept()] == ["a"] * 5 + ["b"] * 3
    assert found == sorted(found)
    assert kept() == kept() != kept(seed=4)


def test_scores_of_a_teacher_are_those_of_the_passages(one_row):
    path = one_row(pos=["p", "q"], neg=["a", "b", "c"], pos_scores=[1, 2], neg_scores=[3, 4, 5])
    known = dict(zip("pqabc", (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))
    dataset = load(path, group_size=4, distillation=True)
    for epoch in range(10):
        sample = dataset[SampleId(epoch, 0)]
        assert sample.teacher == [known[passage] for passage in sample.passages]
    assert load(path)[SampleId(0, 0)].teacher is None


# --- what cannot be used ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query": None}, "query: expected a text, found nothing"),
        ({"query": ["q"]}, "query: expected a text, found a list"),
        ({"pos": "p"}, "pos: expected a list of texts, found a text"),
        ({"pos": []}, "pos: expected at least one text, found none"),
        ({"pos": ["p", 3]}, "pos[1]: expected a list of texts, found a number"),
        ({"neg": None}, "neg: expected at least one text, found none"),
        ({"neg": {"a": 1}}, "neg: expected a list of texts, found an object"),
        ({"prompt": 3}, "prompt: expected a text, found a number"),
        ({"batch_size": 0}, "batch_size: expected a whole number above 0, found 0"),
        ({"train_group_size": "4"}, "train_group_size: expected a whole number above 0, found 4"),
        ({"type": "only_1neg", "neg": []}, "neg: expected at least one text, found none"),
        ({"type": True}, "type: expected a text, found true or false"),
        ({"pos_scores": ["high"]}, "pos_scores[0]: expected a list of numbers, found a text"),
        ({"neg_scores": [0.1, 0.2]}, "neg_scores: 2 scores for 1 texts in neg"),
    ],
)
def test_a_malformed_row_is_an_error_with_file_line_and_field(tmp_path, fields, message):
    good = tiny.rows(1)[0]
    path = tiny.write_rows(tmp_path / "rows.jsonl", [good, {"query": "q", "pos": ["p"], "neg": ["n"], **fields}])
    with pytest.raises(UsageError) as error:
        load(path)
    assert str(error.value).splitlines()[0] == f"{path}:2: {message}"


@pytest.mark.parametrize(("line", "message"), [("{", "not JSON"), ("[1]", "expected an object")])
def test_a_line_that_is_no_row_is_an_error_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(tiny.rows(1)[0])}\n{line}\n")
    with pytest.raises(UsageError, match=f"rows.jsonl:2: {message}"):
        load(path)


def test_missing_negatives_say_what_to_do(one_row):
    with pytest.raises(UsageError, match="--train_group_size 1"):
        load(one_row(neg=[]))


def test_distillation_without_scores_is_an_error_with_file_and_line(one_row):
    path = one_row(neg=["a", "b"], pos_scores=[1])
    with pytest.raises(UsageError, match=r"rows.jsonl:1: pos_scores, neg_scores: expected a score for each text"):
        load(path, distillation=True)


def test_a_file_without_rows_is_an_error(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("\n")
    with pytest.raises(UsageError, match="no rows in"):
        read_rows(find_files([str(path)]), needs_negatives=False, cache_path=str(tmp_path / "cache"))


def test_a_path_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="absent: no such file or directory"):
        find_files([str(tmp_path / "absent")])


def test_a_directory_without_data_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"holds no \.jsonl or \.json file"):
        find_files([str(tmp_path)])


def test_a_file_that_is_given_twice_is_an_error(data):
    with pytest.raises(UsageError, match="given more than once"):
        find_files([str(data), str(data.parent / "train.jsonl")])
