"""Render the manifests and check every object strictly: an unknown field is refused.

Core kinds are checked by kubernetes-validate, Ray's kinds by KubeRay's CustomResourceDefinitions
where they lie at ../shared/data/kuberay-crds (or --crds), and by the rules that its operator has
besides. What cannot be done here (no definitions; no kubectl: then the base is checked as it stands
in its files) is skipped and said so on standard error. Exit code 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent
CRDS = ROOT.parent.parent / "shared" / "data" / "kuberay-crds"
TARGETS = ("base", "overlays/cpu", "overlays/gpu", "overlays/gpu-infiniband")
KUBERNETES = "1.31"
RENDER_S = 60.0
PRESERVE = "x-kubernetes-preserve-unknown-fields"
ENVELOPE: dict[str, Any] = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object", "required": ["name"]},
}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the definitions are large
Schemas = dict[tuple[str, str], dict[str, Any]]


def render(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization; a failure to render is a ValueError with its reason."""
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_S, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def as_written(folder: Path) -> list[dict[str, Any]]:
    """The objects in a folder's own files, as they are before anything is rendered."""
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [item for path in files for item in yaml.safe_load_all(path.read_text()) if item]


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI v3 structural schema as a JSON schema that refuses unknown fields.

    Maps (additionalProperties) and fields marked x-kubernetes-preserve-unknown-fields stay open.
    """
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {
        key: value
        for key, value in schema.items()
        if not key.startswith("x-") and key not in ("nullable", "format", "default", "description")
    }
    if "properties" in schema:
        kept["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
    if "items" in schema:
        kept["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = strict(schema["additionalProperties"])
    elif schema.get("type") == "object" and not schema.get(PRESERVE):
        kept.setdefault("additionalProperties", False)
    if schema.get("nullable") and "type" in kept:
        kept["type"] = [kept["type"], "null"]
    return kept


def load_schemas(folder: Path) -> Schemas:
    """(apiVersion, kind) -> strict schema, from the definitions in a folder."""
    schemas: Schemas = {}
    for path in sorted(folder.glob("*.yaml")):
        for definition in yaml.load_all(path.read_bytes(), LOADER):
            spec = definition["spec"]
            for version in spec["versions"]:
                if not version["storage"]:
                    continue
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= ENVELOPE
                name = f"{spec['group']}/{version['name']}"
                schemas[name, spec["names"]["kind"]] = schema
    return schemas


def problems(document: dict[str, Any], schemas: Schemas) -> Iterator[str]:
    """What is wrong with one object, a sentence each; an unchecked kind raises LookupError."""
    version, kind = document.get("apiVersion", ""), document.get("kind", "")
    if (version, kind) in schemas:
        validator = jsonschema.Draft202012Validator(schemas[version, kind])
        for error in validator.iter_errors(document):
            yield f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}"
        return
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        raise LookupError(f"{version} {kind}") from None
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(str(part) for part in error.path)}: {error.message}"


def operator_rules(document: dict[str, Any]) -> Iterator[str]:
    """What KubeRay's operator refuses and its definitions let pass.

    Source: ray-operator/controllers/ray/utils/validation.go.
    """
    spec = document.get("spec", {})
    if document.get("kind") == "RayJob" and spec.get("clusterSelector"):
        for key in ("backoffLimit", "suspend"):
            if spec.get(key):
                yield f"spec.{key}: not with clusterSelector"
        if spec.get("submissionMode") == "SidecarMode":
            yield "spec.submissionMode: SidecarMode not with clusterSelector"
    cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
    for group in cluster.get("workerGroupSpecs", ()):
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", sys.maxsize)
        if not low <= group.get("replicas", low) <= high:
            yield f"worker group {group.get('groupName')}: replicas are not within {low} to {high}"


def validate(target: str, documents: list[dict[str, Any]], schemas: Schemas) -> list[str]:
    """All problems of a rendered target; prints what was checked and what was skipped."""
    found, checked, skipped = [], [], []
    for document in documents:
        name = f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"
        try:
            wrong = [*operator_rules(document), *problems(document, schemas)]
            found += [f"{target}: {name}: {problem}" for problem in wrong]
            checked.append(name)
        except LookupError:
            skipped.append(name)
    print(f"{target}: validated {', '.join(checked) or 'nothing'}")
    if skipped:
        print(f"SKIPPED {target}: no schema here for {', '.join(skipped)}", file=sys.stderr)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Check every target; 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crds", type=Path, default=CRDS, help="KubeRay's definitions")
    parser.add_argument("targets", nargs="*", default=[str(ROOT / name) for name in TARGETS])
    options = parser.parse_args(arguments)
    read, targets = render, options.targets
    if shutil.which("kubectl") is None:
        print(
            "SKIPPED rendering: kubectl is not installed; the base is checked as written, overlays"
            " are not",
            file=sys.stderr,
        )
        read, targets = as_written, [str(ROOT / "base")]
    schemas = load_schemas(options.crds)
    if not schemas:
        print(f"SKIPPED Ray's kinds: no KubeRay definitions in {options.crds}", file=sys.stderr)
    found = []
    for target in targets:
        try:
            found += validate(target, read(Path(target)), schemas)
        except ValueError as problem:
            found.append(f"{target}: {problem}")
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
