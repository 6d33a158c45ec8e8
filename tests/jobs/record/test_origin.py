"""Commands that a run proposes name the file it was started with, as long as that says the same; else its own copy."""

from __future__ import annotations

import json
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cluster.storage.store import Store
from jobs.config.config import load_config
from jobs.finished.evidence import read_evidence
from jobs.record.origin import CONFIG, read_config, run_verb, run_words, shown
from jobs.run.job_folder import CONFIG_NAME, stage_job

ELSEWHERE = "encoder.model=./nowhere"
"""The stage after the tables stops."""


@pytest.fixture
def started(case: Any) -> tuple[Any, Store, str]:
    """A run that has begun; (the case, its store, its file)."""
    assert case.run(ELSEWHERE, "training.epochs=3").code == 2
    return case, Store(str(case.folder / "out/run")), str(case.folder / "run.toml")


def test_the_users_own_file_is_named_with_what_was_on_the_command_line(started: tuple[Any, Store, str]) -> None:
    _, store, path = started
    assert run_words(store) == (path, ELSEWHERE, "training.epochs=3")


def test_a_path_below_the_working_folder_is_shown_from_there(case: Any) -> None:
    case.patch.chdir(case.folder)
    assert shown(case.folder / "run.toml") == "run.toml"
    assert shown(Path("/elsewhere/run.toml")) == "/elsewhere/run.toml"


def test_the_copy_holds_every_setting_and_starts_the_same_run(started: tuple[Any, Store, str]) -> None:
    case, store, path = started
    copy = Path(store.url(CONFIG))
    config = load_config(copy)
    assert config.model_dump() == load_config(Path(path), [ELSEWHERE, "training.epochs=3"]).model_dump()
    assert read_config(store)["training"]["epochs"] == 3
    assert len(tomllib.loads(copy.read_text())["training"]) > 20, "defaults, too"
    plan = json.loads(case.hardmine("run", str(copy), "--dry-run", "--json").out)
    assert [stage["name"] for stage in plan["stages"] if stage["kept"]] == ["ingest"]


@pytest.mark.parametrize("change", ["edited", "gone", "broken"])
def test_a_file_that_says_something_else_by_now_is_not_named(started: tuple[Any, Store, str], change: str) -> None:
    _, store, path = started
    if change == "gone":
        Path(path).unlink()
    else:
        Path(path).write_text(
            Path(path).read_text().replace("batch_size = 4", "batch_size = 5" if change == "edited" else "batch")
        )
    assert run_words(store) == (store.url(CONFIG),)


def test_a_run_of_which_nothing_is_known_names_no_file(tmp_path: Path) -> None:
    assert run_words(Store(str(tmp_path))) == ()


def test_a_resumed_run_is_proposed_by_status_with_its_own_command(started: tuple[Any, Store, str]) -> None:
    case, store, path = started
    (step,) = json.loads(case.hardmine("status", store.root, "--json").out)["next"]
    assert shlex.split(step["command"]) == ["hardmine", "run", path, ELSEWHERE, "training.epochs=3"]


@pytest.mark.parametrize("change", ["none", "edited", "gone"])
def test_a_submitted_run_is_proposed_as_it_was_submitted(case: Any, tmp_path: Path, change: str) -> None:
    """The job's own job.toml is gone with the job; the user has the file that was submitted, and the address."""
    case.patch.chdir(case.folder)
    case.set("output", str(case.folder / "out"))
    case.set("cluster.address", "HEAD:6379")
    path, words = case.write(), [ELSEWHERE, "training.epochs=3"]
    job = tmp_path / "job"
    job.mkdir()
    stage_job(load_config(path, words), job, address="http://HEAD:8265", root=tmp_path / "none")
    assert case.hardmine("run", str(job / CONFIG_NAME)).code == 2
    shutil.rmtree(job)
    if change == "gone":  # as on the cluster
        path.unlink()
    if change == "edited":
        path.write_text(path.read_text().replace("batch_size = 4", "batch_size = 5"))
    store = Store(str(case.folder / "out/run"))
    named = ["run.toml", *words] if change != "edited" else ["out/run/config.toml"]
    assert run_verb(store) == ("submit", "--address", "http://HEAD:8265")
    (step,) = json.loads(case.hardmine("status", store.root, "--json").out)["next"]
    assert shlex.split(step["command"]) == ["hardmine", "submit", "--address", "http://HEAD:8265", *named]
    assert read_evidence(store).verb == ("submit", "--address", "http://HEAD:8265"), "experiments are submitted, too"
