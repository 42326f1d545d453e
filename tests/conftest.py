"""Fixtures and markers for every room's tests."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: before torch counts them, for what tests start too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import recbole_stream  # noqa: F401 - without Ray, RecBole's quick_start imports only after this

N_USERS = 120


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes over 30 seconds; skip with -m 'not slow'")
    config.addinivalue_line("markers", "long: left out, so that the suite stays short, unless LONG_TESTS=1 is set")
    config.addinivalue_line("markers", "gpu: needs a CUDA device")
    config.addinivalue_line("markers", "ray: needs Ray")
    config.addinivalue_line("markers", "trl: needs TRL")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = {}
    if not os.environ.get("LONG_TESTS"):
        missing["long"] = "takes long: set LONG_TESTS=1"
    if not torch.cuda.is_available():
        missing["gpu"] = "no CUDA device"
    if importlib.util.find_spec("ray") is None:
        missing["ray"] = "Ray is not installed"
    if importlib.util.find_spec("trl") is None:
        missing["trl"] = 'TRL is not installed (the extra "llm")'
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole reads ``sys.argv`` and writes logs and checkpoints into the working folder."""
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny_ml100k(tmp_path: Path) -> str:
    """Write a slice of RecBole's own ml-100k as the data set "tiny"; return its ``data_path``.

    It holds the users 1 to 120, all their interactions and the items in them.
    """
    return _write_tiny_ml100k(tmp_path / "data")


@pytest.fixture(scope="module")
def module_tiny_ml100k(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same for all tests of a module."""
    return _write_tiny_ml100k(tmp_path_factory.mktemp("module") / "data")


@pytest.fixture(scope="module")
def module_tinier_ml100k(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A third of the users, for runs that are made many times over."""
    return _write_tiny_ml100k(tmp_path_factory.mktemp("tinier") / "data", 40)


def _write_tiny_ml100k(folder: Path, users: int = N_USERS) -> str:
    import recbole

    source = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"
    target = folder / "tiny"
    target.mkdir(parents=True)

    head, *rows = (source / "ml-100k.inter").read_text(encoding="utf-8").splitlines(keepends=True)
    rows = [row for row in rows if int(row.split("\t")[0]) <= users]
    (target / "tiny.inter").write_text(head + "".join(rows), encoding="utf-8")

    seen = {row.split("\t")[1] for row in rows}
    head, *items = (source / "ml-100k.item").read_text(encoding="utf-8").splitlines(keepends=True)
    items = [item for item in items if item.split("\t")[0] in seen]
    (target / "tiny.item").write_text(head + "".join(items), encoding="utf-8")
    return str(folder)
