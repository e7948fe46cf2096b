"""The rendered manifests against Kubernetes' schemas, Pod Security, and what the code says."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Final

import kubernetes_validate
import pytest

from api.routes import status
from api.telemetry.metrics import Metrics
from serving.contract import BATCH_SIZES, GENERATOR, MODELS
from serving.tf_serving import server_config
from tests.kubernetes.rendering import K8S, OVERLAYS, container, containers, every_set, find, in_cluster, pod_of, render

KUBERNETES: Final = ("1.30", "1.37")
"""The oldest version that knows everything used (preStop sleep), and the newest whose schemas there are."""
CUSTOM_KINDS: Final = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}
"""The Prometheus operator's and the Gateway API's: a cluster has them only with their CRDs."""
NAME_CACHE_S: Final = 30
"""How long CoreDNS may answer with addresses that have gone: the ``ttl`` and ``cache`` of its usual Corefile."""
POD_SECURITY: Final = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
KEPT_KINDS: Final = {"Namespace", "PersistentVolumeClaim"}
"""An uninstall keeps them, by their label."""


@every_set
def test_each_object_is_valid_and_has_the_common_labels(name: str) -> None:
    objects = render(name)
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names)), names
    assert name not in OVERLAYS or not CUSTOM_KINDS & {each["kind"] for each in objects}
    for each in objects:
        validate(json.dumps(each, sort_keys=True))
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "digitgan", each
        assert labels["app.kubernetes.io/managed-by"] == "kustomize", each
        assert (labels.get("digitgan/keep") == "true") == (each["kind"] in KEPT_KINDS)
        in_pod = [one["name"] for one in containers([each])]
        assert len(in_pod) == len(set(in_pod)), in_pod


@cache
def validate(manifest: str) -> None:
    if (content := json.loads(manifest))["kind"] not in CUSTOM_KINDS:
        for version in KUBERNETES:
            kubernetes_validate.validate(content, version, strict=True)


@every_set
def test_pod_security_is_restricted(name: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, and more."""
    objects = render(name)
    pods = [pod for pod in map(pod_of, objects) if pod]
    assert pods
    for pod in pods:
        assert pod["securityContext"] == POD_SECURITY
        assert pod["automountServiceAccountToken"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        for volume in pod["volumes"]:
            assert volume.keys() <= {"name", "emptyDir", "configMap", "persistentVolumeClaim"}
    namespace = find(in_cluster(name), "Namespace", "digitgan")
    level = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    for each in containers(objects):
        assert each["securityContext"] == CONTAINER_SECURITY
        assert {"cpu", "memory"} <= each["resources"]["requests"].keys()
        assert "memory" in each["resources"]["limits"]
        assert not each["image"].endswith(":latest") or each["image"].startswith("localhost/")
        assert ":" in each["image"].rpartition("/")[2], f"{each['image']} has no tag"
        if level != "privileged":
            assert not any("hostPort" in port for port in each.get("ports", []))
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    assert all(each["automountServiceAccountToken"] is False for each in accounts)


def test_the_config_map_holds_what_export_writes(tmp_path: Path) -> None:
    server_config.write_configs(tmp_path, MODELS, server_config.MOUNT_POINT, threads=2)
    for name in (server_config.MODELS_CONFIG, server_config.BATCHING_CONFIG, server_config.MONITORING_CONFIG):
        assert (K8S / "base" / "config" / name).read_text() == (tmp_path / name).read_text(), name


def test_tensorflow_serving_has_the_flags_that_fit() -> None:
    pod = pod_of(find(render("base"), "Deployment", "model-server"))
    server = container(render("base"), "Deployment", "model-server")
    flags = dict(arg.removeprefix("--").split("=", 1) for arg in server["args"])
    batching = (K8S / "base" / "config" / "batching.config").read_text()
    cpus = server["resources"]["limits"]["cpu"]
    assert re.findall(r"num_batch_threads { value: (\d+) }", batching) == [cpus]
    assert flags["tensorflow_intra_op_parallelism"] == flags["tensorflow_inter_op_parallelism"] == cpus
    assert tuple(map(int, re.findall(r"allowed_batch_sizes: (\d+)", batching))) == BATCH_SIZES
    assert f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}" in batching
    assert int(flags["grpc_max_threads"]) == server_config.GRPC_MAX_THREADS
    assert {"name": "NVIDIA_TF32_OVERRIDE", "value": "0"} in server["env"]
    # The models were tried on this release.
    name, _, release = server["image"].partition(":")
    assert name == "docker.io/tensorflow/serving"
    assert f"TensorFlow {release}, " in "".join(page.read_text() for page in K8S.rglob("README.md"))
    # TensorFlow Serving does not drain, so it serves on until every connection has been renewed once, and not by an old
    # answer of the name service: gRPC spreads the age by a tenth.
    age = re.search(r"grpc.max_connection_age_ms=(\d+)", flags["grpc_channel_arguments"])
    assert age
    sleep = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > sleep >= int(age[1]) / 1000 * 1.1 + NAME_CACHE_S
    assert pod["shareProcessNamespace"] is True
    assert server["command"] == ["/usr/bin/tensorflow_model_server"]


def test_a_model_server_is_ready_when_it_serves_the_label_that_gateways_ask_for() -> None:
    """A server without the label answers each of their calls with an error."""
    objects = render("base model-volume")
    env = {each["name"]: each.get("value") for each in container(objects, "Deployment", "gateway")["env"]}
    path = container(objects, "Deployment", "model-server")["readinessProbe"]["httpGet"]["path"]
    assert path == f"/v1/models/{GENERATOR}/labels/{env['DIGITGAN_VERSION_LABEL']}/metadata"


def test_a_gateway_has_the_time_to_drain() -> None:
    env = {each["name"]: each.get("value") for each in container(render("base"), "Deployment", "gateway")["env"]}
    needed = int(env["DIGITGAN_SHUTDOWN_DELAY_S"]) + int(env["DIGITGAN_SHUTDOWN_TIMEOUT_S"])
    assert pod_of(find(render("base"), "Deployment", "gateway"))["terminationGracePeriodSeconds"] > needed


@pytest.mark.parametrize("name", ["gateway", "model-server"])
def test_a_deployment_is_scaled_spread_and_protected_from_disruption(name: str) -> None:
    each = find(render("base"), "Deployment", name)
    assert find(render("base"), "HorizontalPodAutoscaler", name)["spec"]["minReplicas"] > 1
    # A manifest with `replicas` resets it; one that loses `replicas` in an upgrade falls to one pod.
    assert "replicas" not in each["spec"]
    assert "replicas" not in find(render("production"), "Deployment", name)["spec"]
    spread, selector = pod_of(each)["topologySpreadConstraints"], each["spec"]["selector"]
    assert {one["topologyKey"] for one in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert [one["labelSelector"] for one in spread] == [selector, selector]
    budget = find(render("base"), "PodDisruptionBudget", name)["spec"]
    assert (budget["maxUnavailable"], budget["selector"]) == (1, selector)


@pytest.mark.parametrize("name", ["gateway", "model-server"])
def test_a_busy_pod_is_not_restarted(name: str) -> None:
    """It is restarted after five minutes without an answer, and unready later than its model server may be silent."""
    one = container(render("base"), "Deployment", name)
    for probe in (one["startupProbe"], one["livenessProbe"]):
        assert probe["timeoutSeconds"] >= 30
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 300
    # On a busy machine all pods are slow at once: if they were unready too, the Service would have no pod left.
    readiness = one["readinessProbe"]
    assert readiness["timeoutSeconds"] * readiness["failureThreshold"] >= status.STALE_STATUS_S


def test_the_workers_names_and_numbers_fit() -> None:
    job = find(render("training-workers"), "Job", "train-workers")
    one = container([job], "Job", "train-workers", "trainer")
    env = {each["name"]: each.get("value") for each in one["env"]}
    service = find(render("training-workers"), "Service", pod_of(job)["subdomain"])
    port = service["spec"]["ports"][0]["port"]
    for index in range(job["spec"]["completions"]):
        config = json.loads(env["TF_CONFIG"].replace("$(TASK_INDEX)", str(index)))
        assert config["task"] == {"type": "worker", "index": index}
        assert config["cluster"]["worker"][index] == f"train-workers-{index}.{service['metadata']['name']}:{port}"
    assert len(config["cluster"]["worker"]) == job["spec"]["completions"] == job["spec"]["parallelism"]


@pytest.mark.parametrize(("name", "train"), [("training", "train"), ("training-workers", "train-workers")])
def test_each_training_overlay_starts_one_training(name: str, train: str) -> None:
    assert {each["metadata"]["name"] for each in render(name) if each["kind"] == "Job"} == {"data", train}
    tolerations = pod_of(find(render(name), "Job", train))["tolerations"]
    assert any(each["key"] == "nvidia.com/gpu" for each in tolerations)


def test_publishing_evaluates_before_it_promotes_each_model() -> None:
    steps = [one["args"] for one in containers([find(render("publish"), "Job", "publish")])]
    assert [words[0] for words in steps] == ["export", "evaluate", "models", "models", "models"]
    assert sorted(words[2] for words in steps[2:]) == sorted(MODELS)


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    objects = render("base monitoring")
    (group,) = find(objects, "PrometheusRule", "digitgan")["spec"]["groups"]
    dashboard = json.loads(find(objects, "ConfigMap", "digitgan-dashboard")["data"]["dashboard.json"])
    expressions = [rule["expr"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = set(re.findall(r"\b(?:digitgan|process)_\w+", " ".join(expressions)))
    assert len(named) > 5
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    families = list(Metrics().registry.collect())
    known = {f"{one.name}{suffix}" for one in families for suffix in suffixes.get(one.type, [""])}
    assert named <= known | {sample.name for one in families for sample in one.samples}
    readme = (K8S / "components" / "monitoring" / "README.md").read_text()
    for rule in group["rules"]:
        assert f"| `{rule['alert']}` |" in readme
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
