"""What is embedded in a script comes out of it byte for byte, and a script says what it needs."""

import ast
import base64
import subprocess
import sys

import pytest

from resumecheck.repro.bundle import Bundle
from resumecheck.repro.failure import Failure, Recipe
from resumecheck.repro.issue import fenced
from resumecheck.repro.script import literal, packages_of, requirements, script

CONTENTS = {
    "empty": b"",
    "source": b'"""A module."""\n\nx = 1\n',
    "both quotes": b"a = '''x'''\nb = \"\"\"y\"\"\"\n",
    "ends in a quote": b"a = 'x'",
    "ends in three quotes": b"a = '''x'''",
    "ends in a backslash": b"a = 1 \\",
    "backslashes": b"a = '\\n\\\\ \\x41 \\u0041 \\N{BULLET}'\n",
    "both quotes and backslashes": b"a = '''\\'''\nb = \"\"\"\\\"\"\" \\",
    "no newline": b"x = 1",
    "windows lines": b"x = 1\r\ny = 2\r\n",
    "an encoding of its own": "# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"),
    "an encoding that is also UTF-8": b"# coding: cp1252\nx = 1\n",
    "letters": "x = 'é 語 \u2028'\n".encode(),
    "form feed": b"x = 1\n\x0cy = 2\n",
    "nul": b"x\0y",
    "not text": bytes(range(256)),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_file_comes_out_of_its_literal_byte_for_byte(content):
    names = {"FILES": {}, "BINARY_FILES": {}}
    exec(literal("a/b.py", content), names)
    written = {name: text.encode() for name, text in names["FILES"].items()}
    written |= {name: base64.b64decode(text) for name, text in names["BINARY_FILES"].items()}
    assert written == {"a/b.py": content}


def test_source_reads_like_source():
    assert literal("m.py", CONTENTS["source"]) == "FILES['m.py'] = r'''\"\"\"A module.\"\"\"\n\nx = 1\n'''"


def test_a_script_is_valid_python_whatever_the_finding_says():
    recipe = Recipe(5, 4, on_resume=(("seed", "1"),), tolerance="ulp:2", interrupt="sigkill", twice=True)
    bundle = Bundle("m.py:build", "m", "build", {"m.py": b"x = 1\n"}, outside=('/data/"""/x',))
    text = script(bundle, recipe, Failure("diverged", "RC101", "weights"), 'a """ and a \\ in {it}', {"torch": "2.0"})
    assert "a ''' and a \\ in {it}" in ast.get_docstring(ast.parse(text))
    settings = next(
        node.value for node in ast.parse(text).body if isinstance(node, ast.Assign) and node.targets[0].id == "SETTINGS"
    )
    assert ast.literal_eval(settings) == {
        "steps": 5,
        "at": [4],
        "tolerance": "ulp:2",
        "interrupt": "sigkill",
        "on_resume": {"seed": "1"},
        "twice": True,
    }


def test_a_script_without_resumecheck_does_not_look_like_a_failure(tmp_path):
    bundle = Bundle("m.py:build", "m", "build", {"m.py": b""})
    text = script(bundle, Recipe(2, 1), Failure("diverged", "RC101", "weights"), "Lost.", {})
    (tmp_path / "repro.py").write_text(text, encoding="utf-8")
    (tmp_path / "resumecheck.py").write_text("raise ImportError('no resumecheck')", encoding="utf-8")
    done = subprocess.run([sys.executable, "repro.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no resumecheck; see the first lines of this script for what it needs\n"


def test_a_file_that_a_script_does_not_hold_must_be_there(tmp_path):
    bundle = Bundle("m.py:build", "m", "build", {"m.py": b""}, outside=(str(tmp_path / "large.bin"),))
    text = script(bundle, Recipe(2, 1), Failure("diverged", "RC101", "weights"), "Lost.", {})
    (tmp_path / "repro.py").write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "repro.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"not here, and the target reads it: {tmp_path / 'large.bin'}\n"


def test_what_is_to_be_installed_is_what_the_files_import():
    files = {"m.py": b"import json\nimport xxhash.x\nfrom safetensors.torch import load_file\nfrom . import x\n"}
    found = packages_of(files, {"resumecheck": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5", "accelerate": "1"})
    assert set(found) == {"resumecheck", "xxhash", "safetensors", "torch", "transformers", "accelerate"}
    assert "torch==2.13.0 " in requirements(found)


def test_a_fence_is_longer_than_any_in_the_text():
    assert next(iter(fenced("a ``` b ```` c"))) == "`````text"
