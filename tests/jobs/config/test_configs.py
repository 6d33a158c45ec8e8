"""Every shipped configuration loads, and the README's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.config.config import load_config

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.name)
def test_shipped_config_loads(path: Path) -> None:
    assert load_config(path).name


def test_the_guide_s_config_loads(tmp_path: Path) -> None:
    block = re.search(r"```toml\n(name = .*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    assert block is not None
    path = tmp_path / "guide.toml"
    path.write_text(block.group(1))
    config = load_config(path, ["training.epochs=2", "cluster.shards=3"])
    assert config.training.epochs == 2
    assert config.data.corpus == str(tmp_path / "corpus.parquet")


def test_importing_the_config_loads_no_engine() -> None:
    code = (
        "import sys, jobs.config.config, jobs.cli.app; "
        "print([m for m in ('torch', 'ray', 'faiss', 'deepspeed', 'transformers', 'numba', 'bm25s') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_readme_s_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"\.venv/bin/hardmine (\w+)", readme))
    done = subprocess.run([sys.executable, "-m", "jobs", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert commands
    assert all(f" {command} " in done.stdout for command in commands), commands
