"""The pages: every link leads somewhere, the same figure stands everywhere, named keys and modules exist."""

import argparse
import ast
import html
import importlib
import re
from pathlib import Path

import pytest

from recbole_stream.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "results").glob("*.md")),
    ROOT / "dataset/README.md", ROOT / "speed/README.md", *sorted((ROOT / "experiments").glob("*.md")),
]  # fmt: skip
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# options of the commands themselves, not keys of a configuration
OPTIONS = {
    "address", "config_files", "cpus-per-trial", "data_path", "dataset", "debug", "gpus-per-trial", "model", "models",
    "metric", "nproc", "nproc_per_node", "output", "output_dir", "plugins", "references", "resume", "scheduler", "search",
    "seed", "seeds", "space", "trials", "key", "cuda", "head",
    "inter", "items", "user", "item", "time", "text", "name", "drop-incomplete", "drop-repeated", "equal_time",
}  # fmt: skip


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table(page: str) -> dict[str, list[list[float]]]:
    """First table of a page: first cell without its link -> the figures of each further cell."""
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {
        re.sub(r"\[(.*?)\].*", r"\1", name): [[float(f) for f in re.findall(r"\.\d{4}", cell)] for cell in further]
        for name, *further in cells
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_title(page):
    links = [link for link in LINK.findall(prose(page)) if "://" not in link]
    for link in links:
        name, _, title = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        assert not title or title in anchors(target), link


def test_readme_and_results_give_the_same_figures():
    results = table("RESULTS.md")
    readme = table("README.md")
    assert len(readme) == 4
    for name, (ours, tiger, sasrec, published) in readme.items():
        row = results[name]
        assert [ours, tiger, sasrec] == row[:3], name
        assert set(published) == set(row[4]), name


@pytest.mark.parametrize("name", ["amazon-scientific-2018", "amazon-beauty-2014", "amazon-instruments-2023", "ml-100k"])
def test_results_give_the_figures_of_the_data_sets_pages(name):
    rows = [
        [cell.strip().replace("*", "") for cell in line.strip("|").split("|")]
        for line in (ROOT / f"results/{name}.md").read_text(encoding="utf-8").splitlines()
        if re.match(r"\| (STREAMRec|TIGER|SASRec) ", line)
    ]
    # model and stage -> NDCG@10 of its first row, the sixth column of a run's table; smaller tables have no such row
    found = {}
    for row in (row for row in rows if len(row) > 10):
        found.setdefault((row[0], row[1]), row[5].split(" ")[0])
    for place, row in enumerate([("STREAMRec", "Deliberation (final)"), ("TIGER", "-"), ("SASRec", "-")]):
        figures = table("RESULTS.md")[name][place]
        assert [f"{figure:.4f}" for figure in figures] == ([found[row]] if row in found else [])


def test_the_picture_shows_the_figures_of_the_table():
    drawn = html.unescape((ROOT / "docs/pictures/overview.svg").read_text(encoding="utf-8"))
    shown = ast.literal_eval(re.search(r"<dc:description>(.*?)</dc:description>", drawn)[1])
    figures = {name: [[figure for _, figure in cell] for cell in row] for name, row in shown.items()}
    assert figures == table("RESULTS.md"), "run python docs/pictures/draw.py"


def test_keys_that_the_pages_name_exist():
    from recbole_stream.host.configuration import known_keys

    models = {file.stem for file in (ROOT / "properties/model").glob("*.yaml") if "-" not in file.stem}
    known = set().union(*map(known_keys, models | {"GRU4Rec"}), OPTIONS)
    for module, _ in COMMANDS.values():
        parser = argparse.ArgumentParser()
        importlib.import_module(module).arguments(parser)
        known |= {word.removeprefix("--") for word in parser._option_string_actions}
    for page in (ROOT / "docs").glob("*.md"):
        named = set(
            re.findall(r"(?<![\w-])--([a-z][\w-]+)", re.sub(r"pip install.*", "", page.read_text(encoding="utf-8")))
        )
        assert named <= known, page


def test_modules_and_files_that_the_code_map_names_exist():
    text = (ROOT / "docs/code.md").read_text(encoding="utf-8")
    for file, names in re.findall(r"\]\(\.\./(recbole_stream/[\w/]+)\.py\)((?: `[\w.]+`)+)", text):
        module = importlib.import_module(file.replace("/", "."))
        for name in re.findall(r"`([\w.]+)`", names):
            part = module
            for step in name.split("."):
                part = getattr(part, step)
    for room in re.findall(r"`(recbole_stream/[\w/]+)`", text):
        assert (ROOT / room).is_dir(), room
