"""The site's files: pages and what they show, each under its path in the repository.

MkDocs reads one folder, and some of our pages lie beside it. With the repository's paths a link is written once and
works in a checkout, on a code host and on the site. Addresses on the site stay short: `docs/kafka.md` is `kafka/`.
"""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
BESIDE_DOCS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "deploy/*")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give the files of docs/ their paths in the repository, and add those beside docs/."""
    site = [_of_docs(file, config) if file.src_dir == config.docs_dir else file for file in files]
    beside = [path for pattern in BESIDE_DOCS for path in sorted(ROOT.glob(pattern)) if path.is_file()]
    site += [File(_name(path), str(ROOT), config.site_dir, config.use_directory_urls) for path in beside]
    config.nav = [_filled(entry) for entry in config.nav or []]
    return Files(file for file in site if not file.src_uri.endswith(".py") and "__pycache__" not in file.src_uri)


def _of_docs(file: File, config: MkDocsConfig) -> File:
    return File(f"docs/{file.src_uri}", str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=file.dest_uri)


def _filled(entry: Any) -> Any:
    """The entry with each folder, `decisions/`, replaced by the folder's pages in the order of their names."""
    if isinstance(entry, dict):
        return {title: _filled(inside) for title, inside in entry.items()}
    if isinstance(entry, list):
        return [_filled(each) for each in entry]
    return [_name(path) for path in sorted((ROOT / entry).glob("*.md"))] if entry.endswith("/") else entry


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
