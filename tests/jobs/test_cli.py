"""The command line before any command runs: how fast it answers, its version, and Ctrl-C in the first second."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_help_needs_no_settings_no_arrays_and_no_engine() -> None:
    done = python(
        "import sys; sys.argv = ['hardmine', '--help']\n"
        "from jobs.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'pydantic', 'numpy', 'pyarrow', 'ray', 'torch', 'fsspec'} & set(sys.modules)))"
    )
    assert "Usage: hardmine" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]", "half a second of imports, each time that somebody looks up a command"


def test_the_version_is_the_project_s_in_both_ways() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    command = subprocess.run([sys.executable, "-m", "jobs", "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert command.stdout == f"hardmine {version}\n"
    assert python("import jobs; print(jobs.__version__)").stdout == f"{version}\n"


def test_ctrl_c_while_the_commands_are_imported_is_one_line() -> None:
    done = python(
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from jobs.__main__ import main\n"
        "main()"
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "hardmine: stopped; nothing was started\n"


def test_importing_jobs_loads_neither_settings_nor_engines() -> None:
    done = python("import sys, jobs; print(sorted({'pydantic', 'numpy', 'pyarrow', 'ray', 'torch'} & set(sys.modules)))")
    assert done.stdout == "[]\n"


def test_every_exported_name_can_be_imported() -> None:
    done = python("import jobs; print([name for name in jobs.__all__ if not getattr(jobs, name)])")
    assert (done.stdout, done.stderr) == ("[]\n", "")
