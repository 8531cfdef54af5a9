"""The site builds without a warning, and everything in it leads somewhere in it."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort, PluginError

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


class Links(HTMLParser):
    """The anchors of a page, where its links lead, and what a browser loads for it."""

    def __init__(self, page):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.anchors |= {facts.get("id"), facts.get("name")}
        if tag == "a" and facts.get("href"):
            self.links.append(facts["href"])
        self.loads.extend(filter(None, [facts.get("src"), facts.get("href") if tag == "link" else None]))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return {page: Links(page) for page in directory.rglob("*.html")}


def test_every_page_in_docs_is_in_the_nav():
    named = re.findall(r": (\S+\.md)$", CONFIGURATION, flags=re.MULTILINE)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    missing = set(pages) - set(named)
    assert not missing, f"add a line for each under `nav` in mkdocs.yml: {sorted(missing)}"
    assert set(named) - set(pages) == {"readme.md", "readme.zh-CN.md"}
    assert len(named) == len(set(named))


@pytest.mark.slow
def test_every_link_and_anchor_of_the_site_is_there(site):
    assert len(site) >= 15
    for page, found in site.items():
        if page.name == "404.html":  # its links are absolute: it is shown at any address
            continue
        for link in found.links:
            parts = urlsplit(link)
            if parts.scheme in ("https", "http", "mailto"):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.name}: {link}"
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in site[target].anchors, f"{page.name}: {link}"


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site):
    for page, found in site.items():
        assert found.loads
        for address in found.loads:
            assert not urlsplit(address).netloc, f"{page.name}: {address}"


@pytest.mark.slow
def test_the_reference_names_every_command_and_every_public_name(site):
    import resumecheck
    from resumecheck import cli, strategies
    from resumecheck.plugin import FIXTURES

    anchors = {page.name: found.anchors for page, found in site.items() if page.parent.name == "reference"}
    for command in cli._parser()._subparsers._group_actions[0].choices:
        assert command in anchors["commands.html"]
    for fixture in FIXTURES:
        assert f"resumecheck.plugin.{fixture}" in anchors["pytest.html"]
    for name in resumecheck.__all__:
        assert f"resumecheck.{name}" in anchors["python.html"]
    for name in strategies.__all__:
        assert f"resumecheck.strategies.{name}" in anchors["python.html"]


def test_every_generated_part_is_in_a_page():
    sys.path.insert(0, str(ROOT / "documentation"))
    try:
        from generated import GENERATED
    finally:
        sys.path.pop(0)
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert sorted(re.findall(r"<!-- generated: (\S+) -->", pages)) == sorted(GENERATED)


# A small site with the configuration of this one: what the build must refuse, and the same in order.
PAGES = {
    "clean": "# Page\n\n[a file](../code.py), [a part](#page), [the README](../README.md#top)\n",
    "an anchor that is not there": "# Page\n\n[a part](#elsewhere)\n",
    "an anchor of the README that is not there": "# Page\n\n[a part](../README.md#elsewhere)\n",
    "a page that is not there": "# Page\n\n[a page](other.md)\n",
    "a file that is not there": "# Page\n\n[a file](../other.py)\n",
    "a generated part that is not known": "# Page\n\n<!-- generated: something -->\n",
}


def small_site(directory, text, nav="[page.md, readme.md]"):
    (directory / "docs").mkdir()
    (directory / "docs" / "page.md").write_text(text, encoding="utf-8")
    (directory / "README.md").write_text("# Top\n\n[the page](docs/page.md)\n", encoding="utf-8")
    (directory / "code.py").write_text("x = 1\n", encoding="utf-8")
    _head, _colon, validation = CONFIGURATION.partition("\nvalidation:")
    hooks = [str(ROOT / "documentation" / f"{name}.py") for name in ("generated", "outside_links")]
    (directory / "mkdocs.yml").write_text(
        f"site_name: small\nnav: {nav}\nhooks: {hooks}\nplugins: []\n\nvalidation:{validation}"
        "theme: { name: mkdocs }\n",
        encoding="utf-8",
    )
    build(load_config(str(directory / "mkdocs.yml"), strict=True, site_dir=str(directory / "site")))


def test_a_link_to_a_file_outside_docs_leads_to_a_page_that_shows_it(tmp_path):
    small_site(tmp_path, PAGES["clean"])
    page = (tmp_path / "site" / "page" / "index.html").read_text(encoding="utf-8")
    assert 'href="../source/code.py/"' in page
    assert "x = 1" in (tmp_path / "site" / "source" / "code.py" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("defect", [name for name in PAGES if name != "clean"])
def test_the_build_refuses(defect, tmp_path):
    with pytest.raises((Abort, PluginError, KeyError)):
        small_site(tmp_path, PAGES[defect])


def test_the_build_refuses_a_page_that_is_not_in_the_nav(tmp_path):
    with pytest.raises(Abort):
        small_site(tmp_path, PAGES["clean"], nav="[readme.md]")
