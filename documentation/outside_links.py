"""Hook of the site: the README is a page of it, and a link to a file outside docs/ leads to a page that shows the file.

So the pages have the links that work where the repository is read, and the site needs no repository to link to.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

DOCS = "docs"
#: A file of the repository -> the page of the site that it is.
READMES = {"README.md": "readme.md", "README.zh-CN.md": "readme.zh-CN.md"}
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".yml": "yaml", "": "text", ".md": "markdown"}

_FENCED = re.compile(r"(^```.*?^```[^\n]*$)", flags=re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)]*)?\)")
_LOG = get_plugin_logger(__name__)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the READMEs, and a page for each file outside docs/ that a page links to."""
    root = Path(config.config_file_path).parent
    wanted: set[str] = set()
    for source, uri in READMES.items():
        if (root / source).exists():
            text = (root / source).read_text(encoding="utf-8")
            wanted |= outside(text, source)
            files.append(File.generated(config, uri, content=rewritten(text, source, uri)))
    for page in files.documentation_pages():
        if page.src_uri not in READMES.values():
            wanted |= outside(page.content_string, f"{DOCS}/{page.src_uri}")
    for path in sorted(wanted):
        if (root / path).is_file():
            shown = File.generated(config, _uri(path), content=_listing(root, path))
            shown.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(shown)
        else:
            _LOG.warning("a page links to %s, which is not a file of the repository", path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files outside docs/ lead to their pages."""
    uri = page.file.src_uri
    return markdown if page.file.generated_by else rewritten(markdown, f"{DOCS}/{uri}", uri)


def outside(markdown: str, source: str) -> set[str]:
    """The files outside docs/, by their path in the repository, that the text of `source` links to."""
    paths = {_path(link, source) for part in _FENCED.split(markdown)[::2] for link, _anchor in _LINK.findall(part)}
    return {path for path in paths if not path.startswith(f"{DOCS}/") and path not in READMES}


def rewritten(markdown: str, source: str, uri: str) -> str:
    """The text of the file `source` of the repository, with the links that it needs as the page `uri`."""

    def link(found: re.Match[str]) -> str:
        target = _uri(_path(found[1], source))
        return f"]({posixpath.relpath(target, posixpath.dirname(uri) or '.')}{found[2] or ''})"

    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def _path(link: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _uri(path: str) -> str:
    """The page of a path of the repository."""
    if path in READMES:
        return READMES[path]
    return path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else f"source/{path}.md"


def _listing(root: Path, path: str) -> str:
    text = (root / path).read_text(encoding="utf-8")
    language = LANGUAGES.get(os.path.splitext(path)[1], "text")
    return f"# {path}\n\n`````{language}\n{text.rstrip()}\n`````\n"
