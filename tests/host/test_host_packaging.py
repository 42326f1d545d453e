"""The wheel: what lies in it, and that it works away from the checkout."""

import shutil
import subprocess
import sys
import zipfile
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
def unpacked(tmp_path_factory):
    """Build the wheel and unzip it, away from the checkout, where it would leave build/ behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("recbole_stream", "properties"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in"):
        shutil.copy(CHECKOUT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("recbole_stream-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_module_and_yaml_of_the_checkout_is_in_the_wheel(unpacked):
    modules = {path.relative_to(CHECKOUT) for path in (CHECKOUT / "recbole_stream").rglob("*.py")}
    yamls = {Path("recbole_stream") / path.relative_to(CHECKOUT) for path in (CHECKOUT / "properties").rglob("*.yaml")}
    packed = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    assert yamls
    assert {path for path in packed if path.suffix in (".py", ".yaml")} == modules | yamls


def test_the_wheel_registers_with_its_own_yamls(unpacked, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(unpacked), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-3:] == [
        str(unpacked),
        str(unpacked / "recbole_stream" / "properties"),
        "recbole_stream.host.models 4 ['text']",
    ]
