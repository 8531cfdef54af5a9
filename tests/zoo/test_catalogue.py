"""The catalogue is complete, consistent, and cheap to import."""

import importlib
import subprocess
import sys

import pytest

from resumecheck.state.components import COMPONENTS
from resumecheck.zoo.catalogue import SPECIMENS, by_name


def test_importing_the_catalogue_imports_no_torch():
    code = "import sys, resumecheck.zoo, resumecheck.zoo.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_unique_and_can_be_asked_for():
    assert len({specimen.name for specimen in SPECIMENS}) == len(SPECIMENS)
    assert all(by_name(specimen.name) is specimen for specimen in SPECIMENS)
    with pytest.raises(KeyError, match="no specimen is called 'nonsense'"):
        by_name("nonsense")


def test_every_component_that_a_cpu_has_is_covered_by_many_mechanisms():
    assert {specimen.component for specimen in SPECIMENS} == COMPONENTS.keys() - {"rng-cuda"}
    assert all(component in COMPONENTS for specimen in SPECIMENS for component in specimen.accepted)
    assert len(SPECIMENS) >= 64
    assert len({specimen.mechanism for specimen in SPECIMENS}) >= 24


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda specimen: specimen.name)
def test_both_builds_exist_and_resume_points_lie_within_the_run(specimen):
    for path in (specimen.mutant, specimen.twin):
        module, name = path.split(":")
        assert callable(getattr(importlib.import_module(module), name))
    assert specimen.at
    assert all(0 < step < specimen.steps for step in specimen.at)
    assert specimen.component not in specimen.also_acceptable
