"""What of deploy/ is checked offline, and how."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cel
import jsonschema
import kubernetes_validate
import yaml

DEPLOY = Path(__file__).parent.parent / "deploy"
KUBERAY = DEPLOY / "kuberay"
SCHEMAS = Path(__file__).parent / "schemas"
KUBERNETES = "1.34"
_CRDS = {
    "RayService": "rayservices.yaml",
    "RayJob": "rayjobs.yaml",
    "RayCronJob": "raycronjobs.yaml",
}


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def check(document: Any) -> None:
    """ValidationError for what a Kubernetes with KubeRay would not take, or would silently drop.

    Not looked at: what only the operator finds.
    """
    if document["apiVersion"] == "ray.io/v1":
        schema = _schema(document["kind"])
        jsonschema.Draft202012Validator(schema).validate(document)
        for message in broken_rules(schema, document):
            raise jsonschema.ValidationError(message)
        for template in pod_templates(document):
            check_pod(template)
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def check_pod(template: Any) -> None:
    """A pod template as a pod of Kubernetes' own."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": template["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def broken_rules(schema: Any, value: Any) -> Iterator[str]:
    """What a CRD's rules in CEL say of a new object."""
    for each in schema.get("x-kubernetes-validations", []):
        # A rule that names oldSelf is about changes.
        if "oldSelf" not in each["rule"] and not cel.evaluate(each["rule"], {"self": value}):
            yield each["message"]
    if isinstance(value, list):
        for item in value:
            yield from broken_rules(schema.get("items", {}), item)
    elif isinstance(value, dict):
        others = schema.get("additionalProperties")
        for name, item in value.items():
            below = schema.get("properties", {}).get(name, others)
            yield from broken_rules(below if isinstance(below, dict) else {}, item)


def pod_templates(node: Any) -> Iterator[Any]:
    """Every pod template somewhere in it."""
    if isinstance(node, dict):
        if isinstance(node.get("spec"), dict) and "containers" in node["spec"]:
            yield node
        for value in node.values():
            yield from pod_templates(value)
    elif isinstance(node, list):
        for value in node:
            yield from pod_templates(value)


@cache
def _schema(kind: str) -> Any:
    """Of v1, without room for a field that it does not name: such a one is dropped in silence."""
    with (SCHEMAS / _CRDS[kind]).open(encoding="utf-8") as file:
        crd = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return _strict(schema)


def _strict(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = dict(schema)
    if "properties" in schema:
        strict["properties"] = {name: _strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            strict["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(strict.get(key), dict):
            strict[key] = _strict(strict[key])
    return strict


def environment_of(container: Any) -> dict[str, Any]:
    return {each["name"]: each for each in container.get("env", [])}


def copy_of(value: Any) -> Any:
    return json.loads(json.dumps(value))
