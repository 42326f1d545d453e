"""An ONNX graph, and the same in 8 bits, beside the model: ``python -m experiments.onnx_int8 MODEL``.

Each user's last event in the folder is ranked after the events before it, as in leave-one-out. The speed is that of one
thread, for one history at a time and for 64.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from experiments.runs import TOP, metrics
from recbole_stream.serving.folder import read_model
from recbole_stream.serving.networks import build_ranker
from recbole_stream.serving.onnx_export import quantised, to_onnx

__all__ = ["compare", "main"]

_USERS = 3000  # at most, drawn
_SECONDS = 5.0

Rank = Callable[[torch.Tensor], np.ndarray]


def compare(folder: Path, seed: int) -> pd.DataFrame:
    """A line for PyTorch, ONNX and ONNX in 8 bits."""
    import onnxruntime

    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    parts = read_model(folder)
    ranker = build_ranker(parts.config, parts.tensors)
    with tempfile.TemporaryDirectory() as scratch:
        plain = to_onnx(ranker, Path(scratch) / "plain.onnx")
        files = {"ONNX": plain, "ONNX, 8 bits": quantised(plain, Path(scratch) / "small.onnx")}
        size = {name: file.stat().st_size / 1e6 for name, file in files.items()}
        ways: dict[str, Rank] = {"PyTorch": lambda rows: ranker.rank(rows, TOP)[0].numpy()}
        for name, file in files.items():
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            ways[name] = lambda rows, session=session: session.run(["items"], {"histories": rows.numpy()})[0][:, :TOP]
        users = [list(items) for items in parts.users["items"] if len(items) > 1]
        drawn = np.random.default_rng(seed).permutation(len(users))[:_USERS]
        rows = [torch.tensor(users[user][:-1][-ranker.longest :]) for user in drawn]
        histories, targets = (
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            [users[user][-1] for user in drawn],
        )
        lines = []
        for name, rank in ways.items():
            items = np.concatenate([rank(part) for part in histories.split(64)])
            hits = items == np.array(targets)[:, None]
            found = metrics(np.where(hits.any(1), hits.argmax(1) + 1.0, np.inf))
            line: dict[str, object] = {"what": name, "users": len(rows), "MB": size.get(name)}
            line |= {"ndcg@10": found["ndcg@10"], "recall@10": found["recall@10"]}
            line |= {f"histories/s, {width} at a time": _speed(rank, histories, width) for width in (1, 64)}
            lines.append(line)
    return pd.DataFrame(lines)


def _speed(rank: Rank, histories: torch.Tensor, width: int) -> float:
    """Histories a second: the best of three rounds, beside other programs."""
    parts, best = histories.split(width), 0.0
    for _ in range(3):
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < _SECONDS / 3:
            part = parts[done % (len(parts) - 1)]
            rank(part)
            done += 1
        best = max(best, done * width / (time.perf_counter() - start))
    return best


def main() -> int:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.onnx_int8", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a model that export wrote")
    parser.add_argument("--seed", type=int, default=2020, help="of the draw of users")
    given = parser.parse_args()
    print(compare(given.model, given.seed).to_markdown(index=False, floatfmt=".4f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
