"""The Ray session: what is checked between its start and the first stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.session.resources import ClusterSize
from cluster.session.session import check_shared
from cluster.storage.store import Store

ONE_NODE = ClusterSize(nodes=1, cpus=2, gpus=0)


def test_one_node_and_object_storage_need_no_look(tmp_path: Path) -> None:
    check_shared(Store(str(tmp_path)), ONE_NODE)  # no Ray runs here
    check_shared(Store("s3://bucket/run"), replace(ONE_NODE, nodes=4))


@pytest.mark.cluster
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs a folder that is another one in each process")
def test_a_folder_that_a_node_does_not_see_is_refused_before_any_stage(
    ray_local: ClusterSize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = replace(ray_local, nodes=2)
    check_shared(Store(str(tmp_path / "shared")), two)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"storage that every node reaches.*1 of 1 nodes do not see.*s3://"):
        check_shared(Store("/proc/self/cwd/own"), two)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
