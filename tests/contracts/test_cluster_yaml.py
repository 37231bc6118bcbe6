"""cluster.yaml and deploy/*.yaml are accepted by what reads them, and agree with the pinned Ray."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY_FILES = sorted((ROOT / "deploy").glob("*.yaml"))


def _cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def _ray_schema() -> dict[str, Any]:
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    return json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))


def _pinned_ray() -> str:
    match = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None
    return match[1]


def test_cluster_yaml_satisfies_ray_schema() -> None:
    jsonschema.validate(_cluster(), _ray_schema())


def test_cluster_yaml_fails_ray_schema_when_a_key_is_misspelt() -> None:
    cluster = copy.deepcopy(_cluster())
    cluster["setup_command"] = cluster.pop("setup_commands")
    with pytest.raises(jsonschema.ValidationError, match="setup_command"):
        jsonschema.validate(cluster, _ray_schema())


def test_cluster_yaml_names_a_head_that_does_no_work() -> None:
    cluster = _cluster()
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"] == {"CPU": 0}


def test_cluster_yaml_allows_as_many_workers_as_its_node_types() -> None:
    cluster = _cluster()
    workers = [node for name, node in cluster["available_node_types"].items() if name != cluster["head_node_type"]]
    assert cluster["max_workers"] == sum(node["max_workers"] for node in workers)
    assert {bool(node["resources"].get("GPU")) for node in workers} == {False, True}


def test_cluster_yaml_images_hold_the_pinned_ray() -> None:
    images = re.findall(r"rayproject/ray:([\d.]+)-py311", (ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    assert images
    assert set(images) == {_pinned_ray()}


@pytest.mark.parametrize("path", DEPLOY_FILES, ids=lambda path: path.name)
def test_deploy_yaml_parses_into_kubernetes_objects(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert {"apiVersion", "kind", "metadata", "spec"} <= document.keys()


def test_rayjob_has_a_cpu_and_a_gpu_group_and_the_pinned_ray() -> None:
    job = yaml.safe_load((ROOT / "deploy" / "kuberay-rayjob.yaml").read_text(encoding="utf-8"))
    cluster = job["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    limits = {name: group["template"]["spec"]["containers"][0]["resources"]["limits"] for name, group in groups.items()}
    assert "nvidia.com/gpu" not in limits["cpu"]
    assert limits["gpu"]["nvidia.com/gpu"] == "1"
    assert cluster["rayVersion"] == _pinned_ray()
    assert job["spec"]["entrypoint"].startswith("python -m indexer index ")
