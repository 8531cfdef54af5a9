import json
import signal
import subprocess
import sys
import time

import pytest

from resumecheck.embedding.demo import DEFAULT_DIRECTORY, compare_weights, main
from resumecheck.embedding.pydocs import first_paragraph, is_held_out, read_pairs, write_data

SOURCE = '''
"""A module."""
raise RuntimeError("imported")

class Box:
    """Holds things and gives them back later.

    A second paragraph.
    """

    def putItem(self, item, *, at_end=False):
        """Put one item into the box, at its
        beginning or end."""

    def _hidden(self):
        """Nobody needs to know about this one."""

def short():
    """Too short."""

def open_box(name):
    """Put one item into the box, at its beginning or end."""
'''


@pytest.fixture
def library(tmp_path):
    for number in range(12):
        source = SOURCE.replace("things", f"things of kind {number}").replace("one item", f"one item of kind {number}")
        (tmp_path / "lib").mkdir(exist_ok=True)
        (tmp_path / "lib" / f"module{number}.py").write_text(source)
    (tmp_path / "lib" / "test").mkdir()
    (tmp_path / "lib" / "test" / "boxes.py").write_text(SOURCE)
    (tmp_path / "lib" / "_private.py").write_text(SOURCE)
    (tmp_path / "lib" / "broken.py").write_text("def (:")
    return tmp_path / "lib"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_pair_is_name_and_signature_in_words_and_the_first_paragraph(library):
    pairs = [pair for pair in read_pairs(library) if pair.module == "module3"]
    assert [(pair.query, pair.passage) for pair in pairs] == [
        ("module3: box", "Holds things of kind 3 and gives them back later."),
        ("module3: box put item (item, at_end)", "Put one item of kind 3 into the box, at its beginning or end."),
    ]


def test_sources_are_read_and_never_imported(library):
    assert list(read_pairs(library))  # importing any of these sources would raise
    assert "module3" not in sys.modules


def test_tests_private_and_broken_modules_are_left_out(library):
    assert {pair.module for pair in read_pairs(library)} == {f"module{number}" for number in range(12)}


def test_no_module_is_in_both_train_and_test(library, tmp_path):
    files = write_data(tmp_path / "data", library=library)
    asked = {row["_id"].partition(".")[0] for row in lines(files.queries)}
    trained = {row["query"].partition(":")[0] for row in lines(files.train)}
    assert asked
    assert trained
    assert asked.isdisjoint(trained)
    assert all(is_held_out(module) for module in asked)


def test_no_text_of_a_held_out_module_is_trained_on(library, tmp_path):
    files = write_data(tmp_path / "data", library=library)
    held_out = {pair.passage for pair in read_pairs(library) if is_held_out(pair.module)}
    seen = {text for row in lines(files.train) for text in (*row["pos"], *row["neg"])}
    assert seen.isdisjoint(held_out)


def test_a_negative_is_never_the_positive(library, tmp_path):
    files = write_data(tmp_path / "data", library=library)
    assert all(row["pos"][0] not in row["neg"] and len(row["neg"]) == 4 for row in lines(files.train))


def test_every_query_is_judged_by_a_passage_of_the_corpus(library, tmp_path):
    files = write_data(tmp_path / "data", library=library)
    corpus = {row["_id"] for row in lines(files.corpus)}
    judged = [line.split("\t") for line in files.qrels.read_text().splitlines()[1:]]
    assert {query for query, _, _ in judged} == {row["_id"] for row in lines(files.queries)}
    assert {passage for _, passage, _ in judged} <= corpus
    assert files.passages == len(corpus)


def test_the_same_library_gives_the_same_bytes(library, tmp_path):
    first, second = write_data(tmp_path / "a", library=library), write_data(tmp_path / "b", library=library)
    for name in ("train", "corpus", "queries", "qrels"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()


def test_the_library_of_this_python_has_enough_for_the_demonstration(tmp_path):
    files = write_data(tmp_path)
    assert files.train_pairs > 1000
    assert files.test_queries > 200


def test_a_first_paragraph_is_one_line_and_says_something():
    assert first_paragraph("One two three\n  four five.\n\nSix.") == "One two three four five."
    assert first_paragraph("Too short.") == ""
    assert len(first_paragraph("word " * 100).split()) == 60


# --- the demonstration -----------------------------------------------------------------------------------------------


def test_the_demonstration_refuses_a_directory_that_is_not_its_own(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("")
    assert main(["--output_dir", str(tmp_path)]) == 2
    assert "not empty and not of an earlier demonstration" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "thesis.txt").exists()


def test_the_default_directory_of_the_demonstration_is_ignored_by_git():
    from pathlib import Path

    assert f"/{DEFAULT_DIRECTORY}/" in (Path(__file__).parents[2] / ".gitignore").read_text().split()


def test_weights_are_compared_bit_for_bit(tmp_path):
    import torch
    from safetensors.torch import save_file

    def save(name, **weights):
        (tmp_path / name).mkdir()
        save_file({key: tensor.clone() for key, tensor in weights.items()}, tmp_path / name / "model.safetensors")
        return tmp_path / name

    zero = torch.zeros(3)
    first = save("first", a=zero, b=zero)
    assert compare_weights(first, first) == (2, 2)
    assert compare_weights(first, save("sign", a=zero, b=-zero)) == (1, 2)
    assert compare_weights(first, save("less", a=zero)) == (1, 2)
    assert compare_weights(first, save("type", a=zero, b=zero.half())) == (1, 2)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_demonstration_that_is_ended_leaves_no_process_behind(tmp_path, end):
    command = [sys.executable, "-m", "resumecheck.embedding.demo", "--output_dir", str(tmp_path / "demo")]
    demo = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "demo" / "logs" / "before.log").exists():
        assert demo.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    demo.send_signal(end)
    _, said = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "everything that was started has been ended" in said
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "demo") not in running
