"""The CronJob and the crontab line: what they start is a command that exists, and may do what it does."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import typer
import yaml

from jobs.cli.app import app

ROOT = Path(__file__).parents[4]
KUBERAY = ROOT / "cluster" / "kuberay"


def options(words: list[str]) -> dict[str, Any]:
    """What `hardmine WORDS` understands. Raises a usage error where a word is unknown."""
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    return dict(command.make_context("hardmine", words[1:]).params)


def test_the_cron_job_starts_a_refresh(tmp_path: Path) -> None:
    text = (KUBERAY / "refresh.yaml").read_text()
    (sed,) = re.findall(r"#   (sed .*) > refresh-rayjob.yaml", text)
    changed = subprocess.run(shlex.split(sed), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    original, job = ([*yaml.safe_load_all(one)] for one in ((KUBERAY / "rayjob.yaml").read_text(), changed))
    assert job[0] == original[0], "the same configuration"
    assert job[1]["metadata"]["name"] == "hardmine-refresh"
    words = shlex.split(job[1]["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "jobs"]
    understood = options(words[3:])
    assert (str(understood["config"]), understood["to"]) == ("/config/run.toml", "s3://bucket/exports")
    original[1]["metadata"]["name"], original[1]["spec"]["entrypoint"] = job[1]["metadata"]["name"], job[1]["spec"]["entrypoint"]
    assert job[1] == original[1], "and the same cluster"


def test_the_cron_job_may_do_what_its_commands_do() -> None:
    account, role, binding, cron = yaml.safe_load_all((KUBERAY / "refresh.yaml").read_text())
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"] == binding["subjects"][0]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    verbs = {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
    assert {"get", "delete", "create", "patch"} <= verbs["rayjobs"]
    assert {"get", "create", "patch"} <= verbs["configmaps"], "rayjob.yaml has the configuration beside the job"
    assert pod["initContainers"][0]["command"][1:4] == ["delete", "rayjob", "hardmine-refresh"]
    (volume,) = pod["volumes"]
    assert pod["containers"][0]["command"][-1].startswith(pod["containers"][0]["volumeMounts"][0]["mountPath"])
    assert volume["configMap"]["name"] == "hardmine-refresh"
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert re.fullmatch(r"[\d*]+ [\d*]+ [\d*]+ [\d*]+ [\d*]+", cron["spec"]["schedule"])


def test_the_crontab_line_is_a_refresh() -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    (line,) = re.findall(r"^(\d+ \d+ \* \* \d) (.*hardmine refresh .*)$", page, re.MULTILINE)
    words = shlex.split(line[1].partition("hardmine refresh ")[2].partition(">>")[0])
    understood = options(["refresh", *words])
    assert (str(understood["config"]), understood["to"], understood["json_output"]) == ("shop.toml", "exports", True)
