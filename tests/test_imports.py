"""What a pytest run pays that has this plugin installed and does not use it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "accelerate", "numpy", "rich")

NOTHING_HEAVY = {
    "import resumecheck": "import resumecheck",
    "import resumecheck.plugin": "import resumecheck.plugin",
    "pytest --help": "import pytest; assert pytest.main(['--help']) == 0",
    "pytest --collect-only": "import pytest; assert pytest.main(['--collect-only', '-q']) == 5",
    "a run with a skipped target": "import pytest; assert pytest.main(['--resumecheck-target', 'train.py:build']) == 0",
    "resumecheck --help": "import sys; sys.argv = ['resumecheck', '--help']; main()",
    "resumecheck verify --help": "import sys; sys.argv = ['resumecheck', 'verify', '--help']; main()",
    "resumecheck crash --help": "import sys; sys.argv = ['resumecheck', 'crash', '--help']; main()",
    "resumecheck repro --help": "import sys; sys.argv = ['resumecheck', 'repro', '--help']; main()",
    "resumecheck doctor --help": "import sys; sys.argv = ['resumecheck', 'doctor', '--help']; main()",
    "resumecheck audit --help": "import sys; sys.argv = ['resumecheck', 'audit', '--help']; main()",
    "the result of an audit": "import resumecheck; assert resumecheck.Audit.__name__ == 'Audit'",
    "wrong usage": "import sys; sys.argv = ['resumecheck', 'verify', 'a:b', '--at', 'x,y']; main()",
}

PRELUDE = """
import sys

def main():
    from resumecheck.cli import main
    try:
        main()
    except SystemExit:
        pass
"""
REPORT = f"\nprint('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"


@pytest.mark.parametrize("code", NOTHING_HEAVY.values(), ids=NOTHING_HEAVY)
def test_nothing_heavy_is_imported_by(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code + REPORT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["HEAVY []"], done.stdout + done.stderr


def test_the_measurement_sees_what_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + "import numpy" + REPORT], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1:] == ["HEAVY ['numpy']"]
