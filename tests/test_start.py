"""start.py: what it decides, what it says where it cannot go on, and that it sets up what the pages promise."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import start
from recbole_stream.host.registration import SUPPORTED_RECBOLE

ROOT = Path(__file__).parents[1]


def test_it_installs_the_recbole_that_the_plugin_knows():
    assert f"recbole=={SUPPORTED_RECBOLE}" == start.RECBOLE


def test_it_asks_for_the_pythons_that_the_package_names():
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "setup.py").read_text())
    assert named == start.PYTHONS


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 7)])
def test_another_python_is_named_in_one_sentence(version):
    with pytest.raises(
        start.StartError, match=rf"^This is Python {version[0]}\.{version[1]}: use 3\.11, 3\.12 or 3\.13"
    ):
        start.check_python(version)


def test_the_pythons_it_asks_for_are_taken():
    for minor in (11, 12, 13):
        start.check_python((3, minor))


def test_an_old_python_can_read_it():
    """Up to the check of the version; 3.8 is the oldest that people still meet."""
    ast.parse((ROOT / "start.py").read_text(), feature_version=(3, 8))


@pytest.mark.parametrize(
    "system, gpu, expected",
    [("Linux", False, True), ("Linux", True, False), ("Darwin", False, False), ("Windows", False, False)],
)
def test_linux_without_a_gpu_is_spared_the_cuda_packages(system, gpu, expected):
    assert start.needs_cpu_build(system, gpu) is expected


def test_the_cpu_build_is_asked_of_pip_first_and_then_of_uv():
    of_pip, of_uv = start.cpu_builds(Path("venv/bin/python"), "torch==2.13.0")
    assert [command[-1] for command in of_pip] == ["torch==2.13.0+cpu"]
    assert [command[-1] for command in of_uv] == ["uv", "torch==2.13.0"]
    # uv must bring torch alone: the other packages come from where pip is told to look
    assert {"--torch-backend=cpu", "--no-deps"} <= set(of_uv[1])
    assert all(command[0] == Path("venv/bin/python") for command in [*of_pip, *of_uv])


def test_versions_come_from_the_requirements():
    assert start.pinned("torch", "torchvision==1.0\ntorch==2.13.0\n") == "torch==2.13.0"


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "The disk is full"),
        ("The virtual environment was not created successfully because ensurepip is not available.", "apt install"),
        ("/usr/bin/python3: No module named venv", "apt install"),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(<pip...",
            "reaches no package",
        ),
    ],
)
def test_known_failures_have_a_cure(words, sentence):
    assert sentence in start.cure(words)


def test_other_failures_are_told_in_their_own_words():
    words = "Collecting x\nERROR: Could not find a version that satisfies x==9\nWARNING: You are using pip 23\n"
    assert start.cure(words) is None
    assert start.last_error(words) == "Could not find a version that satisfies x==9"


def test_a_command_that_fails_gives_its_words_and_leaves_them_in_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("earlier\n")
    assert start.fault([sys.executable, "-c", "print('fine')"], log) is None
    words = start.fault([sys.executable, "-c", "import sys; print('out', flush=True); sys.exit('bad')"], log)
    assert words.split() == ["out", "bad"]
    assert log.read_text().split() == ["earlier", "fine", "out", "bad"]


def test_what_is_installed_is_installed_anew_only_when_it_changes(tmp_path):
    for name, text in (("setup.py", "a"), ("requirements.txt", "b")):
        (tmp_path / name).write_text(text)
    before = start.fingerprint(tmp_path, "encoder")
    assert start.fingerprint(tmp_path, "encoder") == before
    assert start.fingerprint(tmp_path, "encoder,test") != before
    (tmp_path / "requirements.txt").write_text("c")
    assert start.fingerprint(tmp_path, "encoder") != before


def test_what_is_set_up_is_left_alone(tmp_path, capsys):
    """The stamp alone decides: nothing is asked of the folder's Python, which is not there."""
    (tmp_path / "start.stamp").write_text(start.fingerprint(ROOT, "encoder"))
    assert start.set_up(tmp_path, "encoder", cuda=False) == tmp_path / "bin" / "python"
    assert capsys.readouterr().out.count("\n") == 1


def test_without_pip_or_network_it_ends_with_one_sentence(tmp_path):
    """The real thing in a copy of the files it reads, where pip has nowhere to look."""
    for name in ("start.py", "setup.py", "requirements.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    nowhere = {"PIP_INDEX_URL": "http://localhost:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    nowhere |= {"PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    done = subprocess.run(
        [sys.executable, "start.py"], cwd=tmp_path, env=os.environ | nowhere, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout.splitlines() == ["-- Making the virtual environment .venv", f"-- Installing {start.RECBOLE}"]
    assert done.stderr == (
        "Error: pip reaches no package index: connect this machine to a network, then run the same command again.\n"
    )
    assert not (tmp_path / ".venv" / "start.stamp").exists()
