"""The table of findings to read: a kind as text for `resumecheck explain`, all of them as docs/findings.md.

`python -m resumecheck.report.findings_page` writes the page; a test fails where the page is not what the table says.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from resumecheck.diagnose.findings import BY_CODE, BY_COMPONENT, FAMILIES, KINDS, FindingKind
from resumecheck.errors import UsageError
from resumecheck.zoo.catalogue import SPECIMENS

PAGE = Path("docs") / "findings.md"
WIDTH = 100

#: A project as the causes name it -> its repository. GitHub leads `issues/N` to the pull request where N is one.
PROJECTS: dict[str, str] = {
    "DeepSpeed": "deepspeedai/DeepSpeed",
    "FlagEmbedding": "FlagOpen/FlagEmbedding",
    "KempnerForge": "KempnerInstitute/KempnerForge",
    "Lightning": "Lightning-AI/pytorch-lightning",
    "Megatron-LM": "NVIDIA/Megatron-LM",
    "Samudra": "m2lines/Samudra",
    "accelerate": "huggingface/accelerate",
    "ace": "ai2cm/ace",
    "datasets": "huggingface/datasets",
    "flashoptim": "databricks/flashoptim",
    "gpt-neox": "EleutherAI/gpt-neox",
    "lerobot": "huggingface/lerobot",
    "lightly-train": "lightly-ai/lightly-train",
    "mmcv": "open-mmlab/mmcv",
    "ms-swift": "modelscope/ms-swift",
    "pytorch": "pytorch/pytorch",
    "schnetpack": "atomistic-machine-learning/schnetpack",
    "sentence-transformers": "huggingface/sentence-transformers",
    "slime": "THUDM/slime",
    "speculators": "vllm-project/speculators",
    "timm": "huggingface/pytorch-image-models",
    "torchdata": "meta-pytorch/data",
    "transformers": "huggingface/transformers",
    "transgenic": "wyim-pgl/transgenic",
    "trl": "huggingface/trl",
    "waifu-diffusion": "harubaru/waifu-diffusion",
}

_THREADS = re.compile(r"\b([A-Za-z][\w-]*) (#\d+(?:, #\d+)*)")

_INTRODUCTION = """\
# Findings

A finding is a named diagnosis: a stable code, the component of the training state that is lost, and what to do.
`resumecheck explain RC204` prints an entry of this page, and so does `resumecheck explain data-content`.

The numbers in brackets are public threads in which such a bug is reported; many of them are mended by now. Examples
leave out all but the lines that lose the state, and are written for transformers 5 and torch 2. They are run: the tests
put each into a small trainer and expect the check to find it under its code (that of RC105 under RC401, which says what
was in the missing file; that of RC304 where there is a GPU), and to find nothing in the mended one.
"""


def find(name: str) -> FindingKind:
    """The kind of that code or component.

    Raises:
        UsageError: there is none.
    """
    kind = BY_CODE.get(name.upper()) or BY_COMPONENT.get(name.lower())
    if kind is None:
        known = ", ".join(f"{kind.code} {kind.component}" for kind in KINDS)
        raise UsageError(f"no finding has the code or the component {name!r}; known: {known}")
    return kind


def listing() -> str:
    """All kinds, a line each, by family."""
    lines: list[str] = []
    for digit, family in FAMILIES.items():
        lines += ["", f"RC{digit}xx  {family.lower()}"]
        lines += [f"  {kind.code}  {kind.component:<27}{kind.title}" for kind in _family(digit)]
    return "\n".join([*lines[1:], "", "resumecheck explain CODE says more about one."])


def as_text(kind: FindingKind) -> str:
    """A kind for the terminal."""
    sections = {
        "How it comes about": "\n".join(_wrapped(cause, "  - ") for cause in kind.causes),
        "What to do": _wrapped(kind.advice, "  "),
        "Lost": textwrap.indent(kind.example.rstrip(), "    "),
        "Mended": textwrap.indent(kind.cure.rstrip(), "    "),
    }
    paragraphs = [
        f"{kind.code}  {kind.component}: {kind.title}",
        _wrapped(kind.meaning),
        *(f"{heading}\n{text}" for heading, text in sections.items()),
    ]
    if _has_specimens(kind):
        paragraphs.append(f"See it found: resumecheck zoo {kind.component}")
    return "\n\n".join(paragraphs)


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_contents(), *(_entry(kind) for kind in KINDS)])


def _contents() -> Iterator[str]:
    yield "| code | component | what was found |"
    yield "| --- | --- | --- |"
    for kind in KINDS:
        yield f"| [{kind.code}](#{kind.code.lower()}-{kind.component}) | `{kind.component}` | {kind.title} |"
    yield ""


def _entry(kind: FindingKind) -> str:
    family = [f"## {FAMILIES[kind.code[2]]}\n"] if kind is _family(kind.code[2])[0] else []
    see = f"\nSee it found: `resumecheck zoo {kind.component}`.\n" if _has_specimens(kind) else ""
    causes = "\n".join(f"- {_THREADS.sub(_links, cause)}" for cause in kind.causes)
    return "\n".join(
        [
            *family,
            f"### {kind.code} {kind.component}\n",
            f"**{kind.title[0].upper()}{kind.title[1:]}.** {kind.meaning}\n",
            f"How it comes about:\n\n{causes}\n",
            f"Lost:\n\n```python\n{kind.example}```\n",
            f"Mended:\n\n```python\n{kind.cure}```\n",
            f"What to do: {kind.advice}\n{see}",
        ]
    )


def _links(threads: re.Match[str]) -> str:
    """`transformers #1, #2` with a link for each number, where the project is known."""
    repository = PROJECTS.get(threads[1])
    if repository is None:
        return threads[0]
    linked = re.sub(r"#(\d+)", rf"[#\1](https://github.com/{repository}/issues/\1)", threads[2])
    return f"{threads[1]} {linked}"


def _family(digit: str) -> list[FindingKind]:
    return [kind for kind in KINDS if kind.code[2] == digit]


def _has_specimens(kind: FindingKind) -> bool:
    return any(specimen.component == kind.component for specimen in SPECIMENS)


def _wrapped(text: str, indent: str = "") -> str:
    hanging = " " * len(indent)
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
