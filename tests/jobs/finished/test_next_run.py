"""Every command that a real run proposes runs: at its end, in its status, in its diagnosis, on its page."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from jobs.record.origin import run_words
from tests.jobs.run.test_dry_run import grown

COMMAND = re.compile(r"hardmine (?:run|gate|sweep|diagnose|report|status|probe) .*")


def proposed(case: Any, root: Path) -> list[str]:
    """What every voice of a finished run proposes, as commands."""
    told = _steps(json.loads(case.hardmine("status", str(root), "--json").out))
    told += _steps(json.loads(case.hardmine("diagnose", str(root), "--json").out))
    told += _steps({"next": json.loads(case.hardmine("report", str(root), "--json").out)["next"]})
    return [command for text in told for command in COMMAND.findall(text or "")]


def _steps(value: dict[str, Any]) -> list[str]:
    return [step["command"] or step["text"] for step in value.get("next", [])] + [f["next"] for f in value.get("findings", [])]


def works(case: Any, command: str) -> None:
    words = shlex.split(command)[1:]
    small = ["sweep.temperature=[0.05, 0.1]", "sweep.random_fraction=[0.25]", 'sweep.loss=["info_nce"]', "sweep.epochs=1"]
    answer = case.hardmine(*words, *{"run": ["--dry-run"], "sweep": [*small, "--force"]}.get(words[0], []))
    assert answer.code in ((0, 1) if words[0] in ("gate", "probe") else (0,)), f"{command}: {answer.err}"


@pytest.mark.cluster
def test_what_a_run_proposes_names_its_own_file_and_runs(ray_case: Any, ray_local: Any) -> None:
    grown(ray_case)
    ray_case.set("rounds.compare_random", True)
    answer = ray_case.run("training.epochs=2")
    assert answer.code == 0, answer.err
    shown = [line for line in answer.out.splitlines() if line.startswith(("next: ", "then: "))]
    assert shown
    assert "hardmine status" not in answer.out, "a step leads on"
    root = ray_case.folder / "out/run"
    commands = [command for line in shown for command in COMMAND.findall(line)] + proposed(ray_case, root)
    assert commands
    assert not [command for command in commands if "run.toml" in command and str(ray_case.folder / "run.toml") not in command]
    for command in dict.fromkeys(commands):
        works(ray_case, command)
    again = [command for command in commands if " run " in command]
    assert all("training.epochs=2" in command for command in again), "with what was on the command line"
    for command in again[:1]:
        done = ray_case.hardmine(*shlex.split(command)[1:])
        assert done.code == 0, done.err


@pytest.mark.cluster
def test_without_its_file_a_run_is_started_from_the_copy_of_its_settings(ray_case: Any, ray_local: Any) -> None:
    from cluster.storage.store import Store

    grown(ray_case, queries=12)
    ray_case.set("rounds.mined", 0)
    path = ray_case.write()
    answer = ray_case.hardmine("run", str(path))
    assert answer.code == 0, answer.err
    store = Store(str(ray_case.folder / "out/run"))
    assert run_words(store) == (str(path),)
    path.write_text(path.read_text() + "\n[evaluation]\nnum_hits = 50\n")
    assert run_words(store) == (str(ray_case.folder / "out/run/config.toml"),), "the file says something else by now"
    told = json.loads(ray_case.hardmine("run", *run_words(store), "--dry-run", "--json").out)
    assert [stage["name"] for stage in told["stages"] if not stage["kept"]] == []
