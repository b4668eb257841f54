"""uv installs from where pip does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "uv_sources.py"
SETTINGS = """
[global]
index-url = file:///index
extra-index-url =
    file:///second
    file:///third
timeout = 60
[install]
find-links = /wheels
"""
INDEXES = ["--index-url=file:///index", "--extra-index-url=file:///second", "--extra-index-url=file:///third"]


def sources(**variables: str) -> list[str]:
    """Return what the script prints with these environment variables, and no other ones of pip."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [sys.executable, str(SCRIPT)]
    return subprocess.run(command, env=environment | variables, stdout=subprocess.PIPE, text=True).stdout.split()


@pytest.fixture
def settings(tmp_path: Path) -> str:
    path = tmp_path / "pip.conf"
    path.write_text(SETTINGS)
    return str(path)


def test_pips_settings_are_options_of_uv(settings: str) -> None:
    expected = [*INDEXES, "--find-links=/wheels", "--index-strategy=unsafe-best-match"]
    assert sources(PIP_CONFIG_FILE=settings) == expected


def test_a_variable_of_pip_prevails(settings: str) -> None:
    expected = [*INDEXES, "--find-links=/mine", "--find-links=/yours", "--index-strategy=unsafe-best-match"]
    assert sources(PIP_CONFIG_FILE=settings, PIP_FIND_LINKS="/mine /yours") == expected


def test_without_settings_of_pip_uv_keeps_to_its_own() -> None:
    assert sources(PIP_CONFIG_FILE=os.devnull) == []
