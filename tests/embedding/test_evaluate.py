"""The measures equal figures worked out by hand, from embeddings that plain loops make."""

import json
import math

import pytest
import torch

from resumecheck.embedding.evaluate import main, rank
from tests.embedding import tiny

PASSAGES = {f"p{number}": text for number, text in enumerate(tiny.texts(24, seed=21))}
QUERIES = {f"q{number}": text for number, text in enumerate(tiny.texts(5, seed=22))}
#: q4 is not judged; a passage of q3 is not in the corpus and can never be found.
GRADES = {
    "q0": {"p1": 1, "p2": 2, "p3": 3, "p9": 1},
    "q1": {"p0": 2, "p4": 0, "p5": 1},
    "q2": {"p7": 1},
    "q3": {"p8": 1, "gone": 3},
}


@pytest.fixture
def collection(tmp_path):
    tiny.write_rows(tmp_path / "corpus.jsonl", [{"_id": name, "text": text} for name, text in PASSAGES.items()])
    tiny.write_rows(tmp_path / "queries.jsonl", [{"_id": name, "text": text} for name, text in QUERIES.items()])
    lines = [f"{query}\t{passage}\t{grade}\n" for query, found in GRADES.items() for passage, grade in found.items()]
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return tmp_path


def embedding_of(model, tokenizer, text):
    """The mean of the token vectors, of length one: a text at a time, so that nothing is padded."""
    tokens = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state[0].double()
    mean = [sum(float(token[axis]) for token in hidden) / len(hidden) for axis in range(hidden.shape[1])]
    length = math.sqrt(sum(value * value for value in mean))
    return [value / length for value in mean]


def rankings(encoder):
    """The names of the passages for each query, the best first."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(encoder).eval(), AutoTokenizer.from_pretrained(encoder)
    passages = {name: embedding_of(model, tokenizer, text) for name, text in PASSAGES.items()}
    found = {}
    for name, text in QUERIES.items():
        query = embedding_of(model, tokenizer, text)
        scores = {other: sum(a * b for a, b in zip(query, vector, strict=True)) for other, vector in passages.items()}
        found[name] = sorted(scores, key=scores.__getitem__, reverse=True)
    return found


def gain(grades):
    """Discounted cumulative gain of grades in the order of rank (Järvelin and Kekäläinen 2002)."""
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades[:10]))


def by_hand(ranked):
    """The three measures, each the mean over the judged queries."""
    ndcg, reciprocal, recall = [], [], []
    for query, grades in GRADES.items():
        in_order = [grades.get(name, 0) for name in ranked[query]]
        ndcg.append(gain(in_order) / gain(sorted(grades.values(), reverse=True)))
        reciprocal.append(next((1 / (place + 1) for place, grade in enumerate(in_order) if grade > 0), 0.0))
        recall.append(sum(grade > 0 for grade in in_order[:100]) / sum(grade > 0 for grade in grades.values()))
    means = {"nDCG@10": ndcg, "MRR": reciprocal, "recall@100": recall}
    return {name: sum(values) / len(values) for name, values in means.items()}


def measured(encoder, collection, **changes):
    given = {
        "model_name_or_path": encoder,
        "sentence_pooling_method": "mean",
        "json": collection / "figures.json",
        "corpus": collection / "corpus.jsonl",
        "queries": collection / "queries.jsonl",
        "qrels": collection / "qrels.tsv",
        **changes,
    }
    assert main([part for name, value in given.items() for part in (f"--{name}", str(value))]) == 0
    return json.loads((collection / "figures.json").read_text())


def test_the_measures_are_those_worked_out_by_hand(encoder, collection):
    figures, expected = measured(encoder, collection), by_hand(rankings(encoder))
    assert figures["measures"] == pytest.approx(expected, abs=1e-9)
    assert (figures["queries"], figures["passages"]) == (4, 24)
    # A measure at its bound would agree with many wrong formulas.
    assert 0.05 < expected["nDCG@10"] < 0.95
    assert 0.05 < expected["MRR"] < 0.95
    assert expected["recall@100"] == pytest.approx(3.5 / 4)


def test_the_size_of_a_batch_changes_no_measure(encoder, collection):
    one, many = (measured(encoder, collection, batch_size=size)["measures"] for size in (1, 64))
    assert one == pytest.approx(many, abs=1e-12)


def test_the_pooling_that_is_given_is_used(encoder, collection):
    mean, cls = (measured(encoder, collection, sentence_pooling_method=name)["measures"] for name in ("mean", "cls"))
    assert mean != cls


def test_an_instruction_that_is_given_is_used(encoder, collection):
    plain = measured(encoder, collection)["measures"]
    assert measured(encoder, collection, query_instruction_for_retrieval="du da du ")["measures"] != plain


def test_a_query_without_a_passage_found_counts_as_zero(encoder, collection):
    (collection / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq0\tgone\t1\n")
    assert set(measured(encoder, collection)["measures"].values()) == {0.0}


def test_passages_are_ranked_by_dot_product_over_more_queries_than_a_block():
    draw = torch.Generator().manual_seed(0)
    asked, vectors = torch.randn(600, 5, generator=draw), torch.randn(7, 5, generator=draw)
    run = rank([str(number) for number in range(600)], asked, list("abcdefg"), vectors)
    for number in range(600):
        scores = {name: float(asked[number].double() @ vectors[place].double()) for place, name in enumerate("abcdefg")}
        assert run[str(number)] == pytest.approx(scores, abs=1e-5)
