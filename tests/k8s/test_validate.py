"""The manifests are valid, and the validation bites."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "k8s"))
import validate  # noqa: E402

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl not installed")
needs_crds = pytest.mark.skipif(
    not validate.CRDS.is_dir(), reason="KubeRay's definitions are not on this machine"
)


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    return validate.render(ROOT / "k8s" / "overlays" / "cpu")


@pytest.fixture(scope="module")
def schemas() -> validate.Schemas:
    return validate.load_schemas(validate.CRDS)


def find(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [document for document in documents if document["kind"] == kind]
    return copy.deepcopy(found[0])


def pod_specs(node: Any) -> list[dict[str, Any]]:
    """Every pod specification at any depth."""
    if isinstance(node, list):
        return [spec for value in node for spec in pod_specs(value)]
    if not isinstance(node, dict):
        return []
    here = [node] if "containers" in node else []
    return here + [spec for value in node.values() for spec in pod_specs(value)]


@needs_kubectl
@needs_crds
def test_every_object_is_checked_and_valid(capfd: pytest.CaptureFixture[str]) -> None:
    assert validate.main([]) == 0
    shown = capfd.readouterr()
    assert "SKIPPED" not in shown.err
    for name in ("RayCluster/raylm", "RayJob/raylm-tiny", "RayService/raylm-endpoint", "Role/"):
        assert shown.out.count(name) == 2, "in the base and in the overlay"


@needs_kubectl
@needs_crds
@pytest.mark.parametrize(
    ("kind", "path", "said"),
    [
        ("RayCluster", ["spec", "rayVersions"], "'rayVersions' was unexpected"),
        ("RayCluster", ["spec", "headGroupSpec", "template", "spec", "containers", 0, "imagine"],
         "'imagine' was unexpected"),
        ("RayCluster", ["spec", "authOptions", "tokenValue"], "'tokenValue' was unexpected"),
        ("RayJob", ["spec", "entryPoint"], "'entryPoint' was unexpected"),
        ("RayService", ["spec", "rayClusterConfig", "workerGroupSpecs", 0, "maxReplica"],
         "'maxReplica' was unexpected"),
        ("NetworkPolicy", ["spec", "ingres"], "ingres"),
        ("PersistentVolumeClaim", ["spec", "size"], "size"),
        ("ServiceAccount", ["tokens"], "tokens"),
    ],
)  # fmt: skip
def test_an_unknown_field_is_refused(
    rendered: list[dict[str, Any]],
    schemas: validate.Schemas,
    kind: str,
    path: list[Any],
    said: str,
) -> None:
    document = find(rendered, kind)
    assert list(validate.problems(document, schemas)) == []
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "x"
    found = list(validate.problems(document, schemas))
    assert len(found) == 1
    assert said in found[0]


@needs_kubectl
@needs_crds
def test_wrong_types_and_missing_fields_are_refused(
    rendered: list[dict[str, Any]], schemas: validate.Schemas
) -> None:
    cluster = find(rendered, "RayCluster")
    cluster["spec"]["workerGroupSpecs"][0]["maxReplicas"] = "many"
    del cluster["spec"]["headGroupSpec"]["template"]
    found = list(validate.problems(cluster, schemas))
    assert any("'many' is not of type 'integer'" in problem for problem in found)
    assert any("'template' is a required property" in problem for problem in found)


@needs_kubectl
def test_what_the_operator_refuses_is_refused(rendered: list[dict[str, Any]]) -> None:
    assert [rule for document in rendered for rule in validate.operator_rules(document)] == []
    job = find(rendered, "RayJob")
    job["spec"] |= {"backoffLimit": 2, "submissionMode": "SidecarMode"}
    assert list(validate.operator_rules(job)) == [
        "spec.backoffLimit: not with clusterSelector",
        "spec.submissionMode: SidecarMode not with clusterSelector",
    ]
    service = find(rendered, "RayService")
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplicas"] = 9
    assert list(validate.operator_rules(service)) == [
        "worker group replicas: replicas are not within 9 to 2"
    ]


def test_maps_and_preserved_fields_stay_open() -> None:
    schema = validate.strict(
        {
            "type": "object",
            "properties": {
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", validate.PRESERVE: True},
                "port": {"x-kubernetes-int-or-string": True, "anyOf": []},
                "shut": {"type": "object"},
            },
        }
    )
    assert schema["additionalProperties"] is False
    assert schema["properties"]["labels"]["additionalProperties"] == {"type": "string"}
    assert "additionalProperties" not in schema["properties"]["free"]
    assert schema["properties"]["port"] == {"type": ["integer", "string"]}
    assert schema["properties"]["shut"]["additionalProperties"] is False


@needs_kubectl
def test_without_definitions_rays_kinds_are_skipped_loudly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert validate.main(["--crds", str(tmp_path)]) == 0
    shown = capfd.readouterr()
    assert "SKIPPED Ray's kinds" in shown.err
    assert "no schema here for RayCluster/raylm" in shown.err
    assert "Namespace/raylm" in shown.out


def test_without_kubectl_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert validate.main([]) == 0
    shown = capfd.readouterr()
    assert "SKIPPED rendering: kubectl is not installed" in shown.err
    assert "NetworkPolicy/deny-all" in shown.out, "what is written is checked all the same"


@needs_kubectl
def test_a_broken_kustomization_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [gone.yaml]\n")
    assert validate.main([str(tmp_path)]) == 1
    assert "gone.yaml" in capfd.readouterr().err


@needs_kubectl
def test_every_container_is_restricted_and_bounded(rendered: list[dict[str, Any]]) -> None:
    specs = [spec for document in rendered for spec in pod_specs(document)]
    assert len(specs) == 4
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert {"requests", "limits"} <= set(container["resources"])
            assert container["image"] == "raylm:0.1.0"
        for container in spec["containers"]:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)


@needs_kubectl
def test_tokens_are_references_and_never_values(rendered: list[dict[str, Any]]) -> None:
    assert "Secret" not in {document["kind"] for document in rendered}
    for kind, key in (("RayCluster", None), ("RayService", "rayClusterConfig")):
        spec = find(rendered, kind)["spec"]
        options = (spec[key] if key else spec)["authOptions"]
        assert options == {"mode": "token", "secretName": "raylm-ray-token"}


@needs_kubectl
def test_serves_config_is_one_that_ray_and_our_app_accept(rendered: list[dict[str, Any]]) -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.app import Settings

    config = yaml.safe_load(find(rendered, "RayService")["spec"]["serveConfigV2"])
    schema = ServeDeploySchema.model_validate(config)
    assert schema.applications[0].import_path == "serve.app:build_app"
    assert Settings.model_validate(schema.applications[0].args).model == "tiny/int8"


@needs_kubectl
def test_the_jobs_command_is_one_that_the_cli_has(rendered: list[dict[str, Any]]) -> None:
    entrypoint = find(rendered, "RayJob")["spec"]["entrypoint"].split()
    assert entrypoint[:3] == ["raylm", "run", "tiny"]
    assert (ROOT / "stages" / "recipes" / "tiny.yaml").is_file()
