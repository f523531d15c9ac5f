"""Hooks of mkdocs: the Markdown files of the root and the notebook become pages, so that no text stands twice."""

import json
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
NOTEBOOK = "photos.ipynb"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def on_config(config):
    """Append pages that the navigation does not list to its last section, so that a new page is never lost."""
    listed = set(re.findall(r"[\w./-]+\.md", str(config.nav)))
    section = next(iter(config.nav[-1].values()))
    section.extend(path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in listed)
    return config


def on_files(files, config):
    """Add the pages that are made of other files."""
    from mkdocs.structure.files import File

    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=for_the_site(text)))
    notebook = json.loads((ROOT / "docs" / NOTEBOOK).read_text(encoding="utf-8"))
    files.append(File.generated(config, "notebook.md", content=page_of_notebook(notebook)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links out of docs/, to sources, become plain code: the site does not hold them."""
    return LINK.sub(lambda link: _known(link, files), markdown)


def for_the_site(text: str) -> str:
    """Links of a file of the root, as they are from docs/."""
    names = {source: page for page, source in PAGES.items()}

    def moved(link: re.Match) -> str:
        target = link[2].removeprefix("docs/")
        return link[1] + names.get(target, target) + link[3]

    return LINK.sub(moved, text).replace('src="docs/', 'src="')


def page_of_notebook(notebook: dict) -> str:
    """The cells of a notebook as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.append(f"This page is the notebook [{NOTEBOOK}]({NOTEBOOK}).")
    return "\n\n".join(parts) + "\n"


def _known(link: re.Match, files) -> str:
    target = link[2].partition("#")[0]
    if not target or re.match(r"[a-z]+:", target) or files.get_file_from_path(posixpath.normpath(target)) is not None:
        return link[0]
    if not (ROOT / target).exists() and not (ROOT / "docs" / target).exists():
        return link[0]  # broken: mkdocs says so
    return "]"  # leaves [text]: a source of the repository
