"""The RayJob manifest: fields that KubeRay has, workers that are waited for, and a head that does no work."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jobs.config.config import parse_config
from jobs.run import job_folder, submit
from jobs.run.submit import refuse_local_paths

MANIFEST = job_folder.ROOT / "cluster/kuberay/rayjob.yaml"
Document = dict[str, Any]


def documents() -> tuple[Document, Document]:
    """The ConfigMap and the RayJob."""
    config, job = yaml.safe_load_all(MANIFEST.read_text())
    return config, job


def gpus_of(group: Document) -> int:
    container = group["template"]["spec"]["containers"][0]
    return group["replicas"] * int(container["resources"]["limits"].get("nvidia.com/gpu", 0))


def test_every_field_is_one_of_kuberay_s_and_of_its_type() -> None:
    schema = yaml.safe_load(Path(__file__).with_name("rayjob_schema.yaml").read_text())
    _, job = documents()
    jsonschema.validate(job, schema)
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(job, schema)


def test_it_runs_what_submit_runs_and_waits_for_every_worker_and_gpu() -> None:
    config, job = documents()
    spec, groups = job["spec"], job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    nodes, gpus = sum(group["replicas"] for group in groups), sum(map(gpus_of, groups))
    command = "python " + submit.COMMAND.replace("job.toml", "/config/run.toml")
    assert spec["entrypoint"] == f"{command} cluster.expect_nodes={nodes} cluster.expect_gpus={gpus}"
    assert gpus == 2
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": submit.VARIABLES}
    refuse_local_paths(parse_config(tomllib.loads(config["data"]["run.toml"]), source="rayjob.yaml"), "in a pod")


def test_it_is_submitted_when_the_cluster_is_ready_and_every_wait_ends() -> None:
    _, job = documents()
    spec = job["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["preRunningDeadlineSeconds"] > 0
    assert spec["shutdownAfterJobFinishes"]


def test_the_head_does_no_work_and_groups_have_a_fixed_size() -> None:
    _, job = documents()
    ray = job["spec"]["rayClusterSpec"]
    assert f"ray=={ray['rayVersion']}" in (job_folder.ROOT / "constraints.txt").read_text().splitlines()
    assert ray["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    for group in [ray["headGroupSpec"], *ray["workerGroupSpecs"]]:
        container = group["template"]["spec"]["containers"][0]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert group.get("minReplicas") == group.get("maxReplicas") == group.get("replicas")
