"""The manifests are valid, and the validation bites."""

from __future__ import annotations

import copy
import re
import shlex
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


OVERLAYS = [name for name in validate.TARGETS if name.startswith("overlays/")]
GPU_OVERLAYS = [name for name in OVERLAYS if "gpu" in name]
Documents = list[dict[str, Any]]


@pytest.fixture(scope="module")
def renderings() -> dict[str, Documents]:
    return {name: validate.render(ROOT / "k8s" / name) for name in OVERLAYS}


@pytest.fixture(scope="module")
def rendered(renderings: dict[str, Documents]) -> Documents:
    return renderings["overlays/cpu"]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, renderings: dict[str, Documents]) -> Documents:
    return renderings[request.param]


@pytest.fixture(params=GPU_OVERLAYS)
def gpu_overlay(request: pytest.FixtureRequest, renderings: dict[str, Documents]) -> Documents:
    return renderings[request.param]


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


def environment(container: dict[str, Any]) -> dict[str, str | None]:
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def worker_group(documents: Documents, name: str) -> dict[str, Any]:
    groups = find(documents, "RayCluster")["spec"]["workerGroupSpecs"]
    (found,) = [group for group in groups if group["groupName"] == name]
    return found


@needs_kubectl
@needs_crds
def test_every_object_is_checked_and_valid(capfd: pytest.CaptureFixture[str]) -> None:
    assert validate.main([]) == 0
    shown = capfd.readouterr()
    assert "SKIPPED" not in shown.err
    for name in ("RayCluster/raylm", "RayJob/raylm-", "RayService/raylm-endpoint", "Role/"):
        assert shown.out.count(name) == len(validate.TARGETS), "in the base and in every overlay"


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
def test_the_operator_refuses_nothing(overlay: Documents) -> None:
    assert [rule for document in overlay for rule in validate.operator_rules(document)] == []


@needs_kubectl
def test_what_the_operator_refuses_is_refused(rendered: list[dict[str, Any]]) -> None:
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
def test_every_container_is_restricted_and_bounded(overlay: Documents) -> None:
    namespace = find(overlay, "Namespace")["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    specs = [spec for document in overlay for spec in pod_specs(document)]
    groups = find(overlay, "RayCluster")["spec"]["workerGroupSpecs"]
    assert len(specs) == 3 + len(groups), "two heads, the endpoint's replicas, the workers"
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
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
def test_what_is_written_has_a_place(overlay: Documents) -> None:
    """HOME (Triton's cache), /tmp (inductor's) and /dev/shm, beside a root that is read-only."""
    for spec in (spec for document in overlay for spec in pod_specs(document)):
        empty = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
        for container in spec["containers"] + spec.get("initContainers", []):
            places = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            home = environment(container)["HOME"]
            assert {places[home or ""], places["/tmp"], places["/dev/shm"]} <= empty


@needs_kubectl
def test_work_in_progress_lies_where_driver_and_workers_see_it(overlay: Documents) -> None:
    claim = find(overlay, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    specs = pod_specs(find(overlay, "RayCluster"))
    for spec in specs:
        (container,) = spec["containers"]
        assert environment(container)["XDG_CACHE_HOME"] == "/data/cache"
        (volume,) = [mount["name"] for mount in container["volumeMounts"]
                     if mount["mountPath"] == "/data"]  # fmt: skip
        source = {"claimName": claim["metadata"]["name"]}
        assert {"name": volume, "persistentVolumeClaim": source} in spec["volumes"]


@needs_kubectl
def test_the_endpoints_cache_is_not_the_volume_it_may_only_read(overlay: Documents) -> None:
    for spec in pod_specs(find(overlay, "RayService")):
        for container in spec["containers"] + spec.get("initContainers", []):
            assert "XDG_CACHE_HOME" not in environment(container)


@needs_kubectl
def test_shared_memory_holds_rays_objects(overlay: Documents) -> None:
    """Ray keeps its objects on disk where /dev/shm is smaller than what it takes for them."""
    cluster = find(overlay, "RayCluster")["spec"]
    service = find(overlay, "RayService")["spec"]["rayClusterConfig"]
    for spec in (cluster, service):
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            (shared,) = [volume["emptyDir"] for volume in pod["volumes"]
                         if volume["name"] == "shared-memory"]  # fmt: skip
            assert shared["medium"] == "Memory"
            memory = gibibytes(pod["containers"][0]["resources"]["limits"]["memory"])
            told = group["rayStartParams"].get("object-store-memory")
            objects = int(told) / 2**30 if told else 0.3 * memory
            assert objects < gibibytes(shared["sizeLimit"]) < memory


def gibibytes(quantity: str) -> float:
    assert quantity.endswith("Gi")
    return float(quantity.removesuffix("Gi"))


@needs_kubectl
def test_gpu_pods_ask_for_whole_nodes_of_gpus(gpu_overlay: Documents) -> None:
    group = worker_group(gpu_overlay, "gpus")
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (0, 1, 8)
    pod = group["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"], "no other pod may take from a training"
    assert resources["limits"]["nvidia.com/gpu"] == "8"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in (
        pod["tolerations"]
    )
    shared = {"medium": "Memory", "sizeLimit": "64Gi"}
    assert {"name": "shared-memory", "emptyDir": shared} in pod["volumes"]
    assert environment(pod["containers"][0])["NCCL_DEBUG"] == "WARN"
    (other,) = find(gpu_overlay, "RayCluster")["spec"]["workerGroupSpecs"][:1]
    assert other["groupName"] == "workers"
    assert "nvidia.com/gpu" not in str(other), "the CPU group stays as it is"


@needs_kubectl
def test_infiniband_is_for_the_gpu_group_alone(renderings: dict[str, Documents]) -> None:
    assert "rdma/ib" not in str(renderings["overlays/gpu"])
    documents = renderings["overlays/gpu-infiniband"]
    assert str(documents).count("rdma/ib") == 2
    container = worker_group(documents, "gpus")["template"]["spec"]["containers"][0]
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["rdma/ib"] == "1"
    assert environment(container)["NCCL_NET"] == "IB"


@needs_kubectl
def test_tokens_are_references_and_never_values(overlay: Documents) -> None:
    assert "Secret" not in {document["kind"] for document in overlay}
    for kind, key in (("RayCluster", None), ("RayService", "rayClusterConfig")):
        spec = find(overlay, kind)["spec"]
        options = (spec[key] if key else spec)["authOptions"]
        assert options == {"mode": "token", "secretName": "raylm-ray-token"}
    for spec in (spec for document in overlay for spec in pod_specs(document)):
        for container in spec["containers"]:
            credentials = {"name": "raylm-credentials", "optional": True}
            assert container["envFrom"] == [{"secretRef": credentials}]


@needs_kubectl
def test_the_job_runs_a_shipped_recipe_and_the_endpoint_serves_it(overlay: Documents) -> None:
    """The command is one that the CLI has; store and model are the same on both sides."""
    from ray.serve.schema import ServeDeploySchema
    from typer.main import get_command

    from serve.app import Settings
    from stages.cli import app
    from stages.recipe import builtin_recipes, load_recipe

    job = find(overlay, "RayJob")
    program, command, name, *rest = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("raylm", "run")
    assert name in builtin_recipes()
    assert job["metadata"]["name"] == f"raylm-{name}"
    get_command(app).commands["run"].make_context("run", [name, *rest]).close()  # type: ignore[attr-defined]
    recipe = load_recipe(name, [word for word in rest if word != "--set"])
    assert recipe.file.serve is not None

    service = find(overlay, "RayService")["spec"]
    schema = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    assert schema.applications[0].import_path == "serve.app:build_app"
    settings = Settings.model_validate(schema.applications[0].args)
    assert settings.store == recipe.file.store
    assert settings.model == f"{name}/{recipe.file.serve.model}"
    head = service["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    waits = head["initContainers"][0]["args"][0]
    assert f"raylm show {settings.model} --store {settings.store};" in waits


@needs_kubectl
@needs_crds
def test_readmes_own_kustomization_is_valid(tmp_path: Path, schemas: validate.Schemas) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"(?:^    .*\n)+", text[text.index("    resources: [") :], re.MULTILINE)[
        :1
    ]
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(re.sub("(?m)^    ", "", block))
    documents = validate.render(tmp_path / "mine")
    assert validate.validate("mine", documents, schemas) == []
    for spec in (spec for document in documents for spec in pod_specs(document)):
        for container in spec["containers"] + spec.get("initContainers", []):
            assert container["image"] == "REGISTRY/raylm:0.1.0"
    assert find(documents, "RayJob")["spec"]["entrypoint"].startswith("raylm run ")
    assert find(documents, "RayCluster")["spec"]["workerGroupSpecs"][1]["maxReplicas"] == 64
    (policy,) = [d for d in documents if d["metadata"]["name"] == "ray"]
    ports = [to["port"] for rule in policy["spec"]["egress"] for to in rule.get("ports", ())]
    assert {443, 6443, 9000} <= set(ports)
