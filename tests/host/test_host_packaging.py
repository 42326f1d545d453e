"""The wheel: what lies in it, and that it works away from the checkout as the checkout does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

USE = """
from pathlib import Path
import recbole_stream
from recbole_stream.host.paths import properties_dir
from recbole.config import Config
from recbole.utils import get_model
print(Path(recbole_stream.__file__).parents[1])
print(properties_dir())
config = Config(model="TIGER", dataset="amazon-scientific-2018")
print(get_model("TIGER").__module__, config["codebook_levels"], config["text_fields"])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel, away from the checkout, where it would leave build/ behind, and install it into a folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("recbole_stream", "properties"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in"):
        shutil.copy(CHECKOUT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([*pip, *build, source], check=True)
    (wheel,) = folder.glob("recbole_stream-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def away(installed, folder, *command):
    """Run a command of the installed wheel in an empty folder."""
    place = {"PYTHONPATH": str(installed), "HOME": str(folder), "PATH": "", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, env=place, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_module_and_yaml_of_the_checkout_is_in_the_wheel(installed):
    modules = {path.relative_to(CHECKOUT) for path in (CHECKOUT / "recbole_stream").rglob("*.py")}
    yamls = {Path("recbole_stream") / path.relative_to(CHECKOUT) for path in (CHECKOUT / "properties").rglob("*.yaml")}
    packed = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    assert yamls
    assert {path for path in packed if path.suffix in (".py", ".yaml")} == modules | yamls


def test_the_wheel_registers_with_its_own_yamls(installed, tmp_path):
    assert away(installed, tmp_path, sys.executable, "-c", USE).splitlines()[-3:] == [
        str(installed),
        str(installed / "recbole_stream" / "properties"),
        "recbole_stream.host.models 4 ['text']",
    ]


def test_the_wheels_command_trains_and_reports(installed, tmp_path, small):
    """It finds the recipe and the data set's description in the wheel, and records itself as what was typed."""
    arguments = ["--model=TIGER", "--output_dir=out", *small]
    said = away(installed, tmp_path, str(installed / "bin" / "recbole-stream"), *arguments)
    assert "TIGER" in said
    assert "out/report.html" in said and (tmp_path / "out" / "report.html").is_file()
    assert json.loads((tmp_path / "out" / "command.json").read_text())["command"] == ["recbole-stream", *arguments]


def test_the_wheels_modules_say_how_they_are_used(installed, tmp_path):
    assert "--model=" in away(installed, tmp_path, sys.executable, "-m", "recbole_stream", "--help")
    assert "--trials=" in away(installed, tmp_path, str(installed / "bin" / "recbole-stream-tune"), "--help")
