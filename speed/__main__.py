"""``python -m speed NAME``: times both sides in turn, prints medians and their ratio; see README.md."""

from __future__ import annotations

import argparse
import importlib
import sys

import torch

BENCHMARKS = {
    "training": ("speed.training", "run"),
    "ranking": ("speed.ranking", "ranking"),
    "recommending": ("speed.recommending", "recommending"),
    "exact": ("speed.ranking", "exact"),
    "growth": ("speed.ranking", "growth"),
    "rollouts": ("speed.stages", "rollouts"),
    "collection": ("speed.stages", "collection"),
    "baselines": ("speed.baselines", "run"),
    "tokenizer": ("speed.tokenizer", "run"),
    "gpu": ("speed.gpu", "run"),
}
# commands with options of their own: `python -m speed NAME --help`
COMMANDS = {"generate": "speed.generate", "large": "speed.large"}


def main(arguments: list[str] | None = None) -> dict[str, object] | None:
    """Runs one benchmark and returns what it reports, or runs one of ``COMMANDS``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        return importlib.import_module(COMMANDS[arguments[0]]).main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m speed", description=__doc__, epilog=f"Other commands: {', '.join(COMMANDS)}."
    )
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--json", help="write the result to this file")
    parser.add_argument("--data_path", help="folder of atomic files, as RecBole's data_path (default: dataset)")
    parser.add_argument("--dataset", help="default: amazon-beauty-2014 (gpu: amazon-instruments-2023), else ml-100k")
    parser.add_argument("--cache_dir", default="cache", help="folder in which weights of short trainings are kept")
    parser.add_argument("--threads", type=int, help="threads of the CPU (default: PyTorch's choice)")
    parser.add_argument("--tiny", action="store_true", help="sizes of a test: seconds, figures without meaning")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    module_name, function = BENCHMARKS[given.name]
    module = importlib.import_module(module_name)
    dataset = given.dataset or ("amazon-instruments-2023" if given.name == "gpu" else "amazon-beauty-2014")
    sizes = module.TINY_SIZES if given.tiny else module.FULL
    return getattr(module, function)(sizes, given.data_path, dataset, given.cache_dir, given.json)


if __name__ == "__main__":
    main()
