"""The room of serving stands on model and decoding alone."""

import re
from pathlib import Path

import recbole_stream.serving

ROOM = Path(recbole_stream.serving.__file__).parent


def test_it_imports_neither_host_nor_recbole():
    for file in ROOM.rglob("*.py"):
        imports = re.findall(r"^\s*(?:from|import)\s+([\w.]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert not [name for name in imports if name.split(".")[0] == "recbole" or ".host" in name], file
