"""A hook of MkDocs: the site holds the repository's pages, and what they link to, each at its place in the repository."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# what pages show or link to; the site gets a copy
SHOWN = (
    "*.md", "docs/*.md", "docs/*.html", "docs/pictures/*.svg", "docs/pictures/*.png", "dataset/*.md", "results/*.md", "speed/*.md", "experiments/*.md",
    "experiments/plots/*.png", "LICENSE", "CITATION.cff", "properties/**/*.yaml", "recbole_stream/**/*.py", "tests/examples/*.py",
)  # fmt: skip


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the repository's files in the place of those of ``docs_dir``, beside the theme's own."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files
