"""The room of language models stands on text and training alone."""

import re
from pathlib import Path

import recbole_stream.llm

ROOM = Path(recbole_stream.llm.__file__).parent


def test_it_imports_neither_host_nor_recbole():
    for file in ROOM.rglob("*.py"):
        imports = re.findall(r"^\s*(?:from|import)\s+([\w.]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert not [name for name in imports if name.split(".")[0] == "recbole" or ".host" in name], file


def test_trl_is_imported_for_training_alone():
    imported = [file.name for file in ROOM.rglob("*.py") if re.search(r"^from trl", file.read_text(), re.MULTILINE)]
    assert imported == ["grpo.py"]
