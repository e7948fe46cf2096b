"""The Kubernetes manifests: overlays and combinations of components, against Kubernetes' schemas and our rules."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import kubernetes_validate
import pytest
import typer

from api.routes import health
from api.telemetry.metrics import Metrics
from digitgan.cli import app
from serving.contract import BATCH_SIZES, MODELS
from serving.tf_serving import server_config
from tests.kubernetes.rendering import (
    COMPONENTS,
    K8S,
    OVERLAYS,
    Manifest,
    container,
    containers,
    find,
    overlay,
    pod_of,
    render_with,
)
from tests.kubernetes.test_references import needed_by

KUBERNETES = ("1.30", "1.37")
"""The oldest version that knows everything used (preStop sleep), and the newest whose schemas there are."""
CUSTOM_KINDS = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}
"""The Prometheus operator's and the Gateway API's: a cluster has them only with their CRDs."""
_valid: set[tuple[str, str]] = set()

COMBINATIONS = ((), *((component,) for component in COMPONENTS), COMPONENTS)
"""No component, each one, and all of them."""


def assert_valid(objects: Sequence[Manifest]) -> None:
    """No unknown field, no wrong type, and no two objects of one name, or containers in a pod."""
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    for each in objects:
        if pod := pod_of(each):
            names += [(each["metadata"]["name"], container["name"]) for container in containers(pod)]
    assert len(names) == len(set(names)), names
    for each in objects:
        if each["kind"] in CUSTOM_KINDS:
            continue
        for version in KUBERNETES:
            key = version, json.dumps(each, sort_keys=True)
            if key not in _valid:
                kubernetes_validate.validate(each, version, strict=True)
                _valid.add(key)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_valid(name: str) -> None:
    objects = overlay(name)
    assert_valid(objects)
    assert_restricted(objects)


def test_no_component_each_component_and_all_of_them_are_valid(tmp_path: Path) -> None:
    """test_references.py renders every combination."""
    for components in COMBINATIONS:
        objects = render_with(components, tmp_path)
        assert_valid(objects)
        assert_restricted(objects)
        deployed = [each["metadata"]["name"] for each in objects if each["kind"] == "Deployment"]
        assert {"gateway", "model-server"} <= set(deployed), components


def assert_restricted(objects: Sequence[Manifest]) -> None:
    """Pod Security "restricted" (https://kubernetes.io/docs/concepts/security/pod-security-standards), and more."""
    pods = [pod for pod in map(pod_of, objects) if pod]
    assert pods
    for pod in pods:
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["fsGroup"] == security["runAsGroup"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        for volume in pod["volumes"]:
            assert volume.keys() <= {"name", "emptyDir", "configMap", "persistentVolumeClaim"}
        for each in containers(pod):
            own = each["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= each["resources"]["requests"].keys()
            assert "memory" in each["resources"]["limits"]
            assert not each["image"].endswith(":latest") or each["image"].startswith("localhost/")
            assert ":" in each["image"].rpartition("/")[2], f"{each['image']} has no tag"
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    assert all(each["automountServiceAccountToken"] is False for each in accounts)


def test_the_config_map_holds_what_export_writes(tmp_path: Path) -> None:
    server_config.write_configs(tmp_path, MODELS, server_config.MOUNT_POINT, threads=2)
    for name in (server_config.MODELS_CONFIG, server_config.BATCHING_CONFIG, server_config.MONITORING_CONFIG):
        assert (K8S / "base" / "config" / name).read_text() == (tmp_path / name).read_text(), name


def test_threads_batches_and_cpu_limit_agree(tmp_path: Path) -> None:
    objects = render_with((), tmp_path)
    server = container(find(objects, "Deployment", "model-server"), "model-server")
    flags = dict(arg.removeprefix("--").split("=", 1) for arg in server["args"])
    (config,) = [each for each in objects if each["kind"] == "ConfigMap"]
    batching = config["data"]["batching.config"]
    assert re.findall(r"num_batch_threads { value: (\d+) }", batching) == [server["resources"]["limits"]["cpu"]]
    assert flags["tensorflow_intra_op_parallelism"] == server["resources"]["limits"]["cpu"]
    assert flags["tensorflow_inter_op_parallelism"] == server["resources"]["limits"]["cpu"]
    assert tuple(map(int, re.findall(r"allowed_batch_sizes: (\d+)", batching))) == BATCH_SIZES
    assert f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}" in batching


def test_tensorflow_serving_computes_without_tf32(tmp_path: Path) -> None:
    server = container(find(render_with((), tmp_path), "Deployment", "model-server"), "model-server")
    assert {"name": "NVIDIA_TF32_OVERRIDE", "value": "0"} in server["env"]


def test_tensorflow_serving_is_of_a_release_that_the_models_were_tried_on(tmp_path: Path) -> None:
    server = container(find(render_with((), tmp_path), "Deployment", "model-server"), "model-server")
    name, _, release = server["image"].partition(":")
    assert name == "docker.io/tensorflow/serving"
    assert f"TensorFlow {release}, " in (K8S / "README.md").read_text("utf-8")


def test_a_model_server_leaves_after_its_clients(tmp_path: Path) -> None:
    """It serves on until every connection to it has been renewed once: TensorFlow Serving itself doesn't drain."""
    pod = pod_of(find(render_with((), tmp_path), "Deployment", "model-server"))
    (server,) = pod["containers"]
    age = re.search(r"grpc.max_connection_age_ms=(\d+)", " ".join(server["args"]))
    assert age
    sleep = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep >= int(age[1]) / 1000 * 1.1 + 5  # gRPC spreads the age by a tenth; the name lives 5 s
    assert pod["terminationGracePeriodSeconds"] > sleep
    assert pod["shareProcessNamespace"] is True
    assert server["command"] == ["/usr/bin/tensorflow_model_server"]


def test_the_model_server_has_a_thread_for_each_call_of_its_gateways(tmp_path: Path) -> None:
    (server,) = pod_of(find(render_with((), tmp_path), "Deployment", "model-server"))["containers"]
    assert f"--grpc_max_threads={server_config.GRPC_MAX_THREADS}" in server["args"]


def test_a_gateway_has_the_time_to_drain(tmp_path: Path) -> None:
    workload = find(render_with((), tmp_path), "Deployment", "gateway")
    env = {each["name"]: each.get("value") for each in container(workload, "gateway")["env"]}
    needed = int(env["DIGITGAN_SHUTDOWN_DELAY_S"]) + int(env["DIGITGAN_SHUTDOWN_TIMEOUT_S"])
    assert pod_of(workload)["terminationGracePeriodSeconds"] > needed


def test_only_the_gateway_reaches_the_model_server(tmp_path: Path) -> None:
    objects = render_with((), tmp_path)
    policy = find(objects, "NetworkPolicy", "model-server")["spec"]
    assert policy["egress"] if "egress" in policy else policy["policyTypes"] == ["Ingress", "Egress"]
    peers = [peer for rule in policy["ingress"] for peer in rule["from"]]
    assert peers == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}}]
    denied = find(objects, "NetworkPolicy", "deny")["spec"]
    for workload in ("gateway", "model-server"):
        labels = find(objects, "Deployment", workload)["spec"]["template"]["metadata"]["labels"]
        assert denied["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_workers_names_and_numbers_fit() -> None:
    objects = overlay("training-workers")
    job = find(objects, "Job", "train-workers")
    env = {each["name"]: each.get("value") for each in container(job, "trainer")["env"]}
    service = find(objects, "Service", pod_of(job)["subdomain"])
    port = service["spec"]["ports"][0]["port"]
    for index in range(job["spec"]["completions"]):
        config = json.loads(env["TF_CONFIG"].replace("$(TASK_INDEX)", str(index)))
        assert config["task"] == {"type": "worker", "index": index}
        assert config["cluster"]["worker"][index] == f"train-workers-{index}.{service['metadata']['name']}:{port}"
    assert len(config["cluster"]["worker"]) == job["spec"]["completions"] == job["spec"]["parallelism"]


def metric_names() -> set[str]:
    return {sample.name for family in Metrics().registry.collect() for sample in family.samples} | {
        name
        for family in Metrics().registry.collect()
        for name in {
            "counter": [f"{family.name}_total"],
            "histogram": [f"{family.name}_bucket", f"{family.name}_sum", f"{family.name}_count"],
        }.get(family.type, [family.name])
    }


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    objects = render_with(["monitoring"], tmp_path)
    (group,) = find(objects, "PrometheusRule", "digitgan")["spec"]["groups"]
    dashboard = json.loads(find(objects, "ConfigMap", "digitgan-dashboard")["data"]["dashboard.json"])
    expressions = [rule["expr"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"\b(?:digitgan|process)_\w+", " ".join(expressions)))
    assert len(asked) > 5
    failed = [rule["alert"] for rule in group["rules"] if "digitgan_model_newest_version_failed" in rule["expr"]]
    assert failed == ["DigitganVersionFailed"]
    assert asked <= metric_names()
    told = (K8S / "components" / "monitoring" / "README.md").read_text()
    for rule in group["rules"]:
        assert f"| `{rule['alert']}` |" in told
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_every_deployment_is_probed_spread_and_protected_from_disruption(tmp_path: Path) -> None:
    objects = render_with((), tmp_path)
    deployments = [each for each in objects if each["kind"] == "Deployment"]
    assert len(deployments) == 2
    for each in deployments:
        name, template = each["metadata"]["name"], each["spec"]["template"]
        labels = template["metadata"]["labels"].items()
        assert find(objects, "HorizontalPodAutoscaler", name)["spec"]["minReplicas"] > 1
        for selected in [each["spec"], *template["spec"]["topologySpreadConstraints"]]:
            assert (selected.get("selector") or selected["labelSelector"])["matchLabels"].items() <= labels
        keys = {constraint["topologyKey"] for constraint in template["spec"]["topologySpreadConstraints"]}
        assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        budget = find(objects, "PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= labels
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container(each, name).keys()


@pytest.mark.parametrize(
    "place", [*(f"components/{name}" for name in COMPONENTS), *(f"overlays/{name}" for name in OVERLAYS)]
)
def test_each_part_has_a_readme(place: str) -> None:
    assert len((K8S / place / "README.md").read_text()) > 200


def test_autoscalers_alone_set_the_number_of_pods(tmp_path: Path) -> None:
    """A manifest with ``replicas`` resets it; one that loses ``replicas`` in an upgrade falls to one pod."""
    for objects in (render_with((), tmp_path), overlay("production")):
        scaled = {
            each["spec"]["scaleTargetRef"]["name"] for each in objects if each["kind"] == "HorizontalPodAutoscaler"
        }
        deployed = {
            each["metadata"]["name"]: "replicas" in each["spec"] for each in objects if each["kind"] == "Deployment"
        }
        assert {name for name, fixed in deployed.items() if not fixed} == scaled == {"gateway", "model-server"}


def test_a_busy_pod_is_not_restarted(tmp_path: Path) -> None:
    """It is restarted after five minutes without an answer, and unready later than its model server may be silent."""
    for name in ("gateway", "model-server"):
        one = container(find(render_with((), tmp_path), "Deployment", name), name)
        for probe in (one["startupProbe"], one["livenessProbe"]):
            assert probe["timeoutSeconds"] >= 30
            assert probe["periodSeconds"] * probe["failureThreshold"] >= 300
        # On a busy machine all pods are slow at once: if they were unready too, the Service would have no pod left.
        readiness = one["readinessProbe"]
        assert readiness["timeoutSeconds"] * readiness["failureThreshold"] >= health.STALE_STATUS_S


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_needs_no_custom_resources(name: str) -> None:
    assert not CUSTOM_KINDS & {each["kind"] for each in overlay(name)}


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_port_of_the_host_is_where_pod_security_allows_it(name: str) -> None:
    objects = [*overlay(name), *needed_by(name)]
    level = find(objects, "Namespace", "digitgan")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    opened = [
        port
        for pod in map(pod_of, objects)
        if pod
        for one in containers(pod)
        for port in one.get("ports", [])
        if "hostPort" in port
    ]
    assert not opened or level == "privileged"


def test_what_an_uninstall_keeps_has_a_label_for_it(tmp_path: Path) -> None:
    kept = {"Namespace", "PersistentVolumeClaim"}
    for objects in [*map(overlay, OVERLAYS), *(render_with(names, tmp_path) for names in COMBINATIONS)]:
        for each in objects:
            assert (each["metadata"]["labels"].get("digitgan/keep") == "true") == (each["kind"] in kept)


def test_every_object_has_the_common_labels(tmp_path: Path) -> None:
    for objects in [*map(overlay, OVERLAYS), *(render_with(names, tmp_path) for names in COMBINATIONS)]:
        for each in objects:
            labels = each["metadata"].get("labels", {})
            assert labels["app.kubernetes.io/part-of"] == "digitgan", each
            assert labels["app.kubernetes.io/managed-by"] == "kustomize", each


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name.startswith("training")])
def test_each_training_overlay_starts_one_training(name: str) -> None:
    objects = overlay(name)
    jobs = {each["metadata"]["name"] for each in objects if each["kind"] == "Job"}
    assert jobs == {"data", name.replace("training", "train")}
    pod = pod_of(find(objects, "Job", name.replace("training", "train")))
    assert [one["name"] for one in pod["initContainers"]] == ["wait"]
    assert any(each["key"] == "nvidia.com/gpu" for each in pod["tolerations"])


@pytest.mark.parametrize("name", [*OVERLAYS, "base"])
def test_dns_is_allowed_wherever_the_cluster_has_it(name: str, tmp_path: Path) -> None:
    objects = render_with((), tmp_path) if name == "base" else overlay(name)
    policies = [each for each in objects if each["kind"] == "NetworkPolicy"]
    if policies:  # overlays/local has none, and overlays/publish has those of the service
        (rule,) = find(policies, "NetworkPolicy", "dns")["spec"]["egress"]
        assert "to" not in rule
        assert {(port["port"], port["protocol"]) for port in rule["ports"]} == {
            (port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")
        }


def test_workers_reach_each_other_on_every_port() -> None:
    policy = find(overlay("training-workers"), "NetworkPolicy", "trainer")["spec"]
    for rules, peers in ((policy["ingress"], "from"), (policy["egress"], "to")):
        assert rules == [{peers: [{"podSelector": policy["podSelector"]}]}]


def commands() -> Iterator[tuple[str, ...]]:
    """Gives the words of each digitgan command that a manifest runs."""
    for objects in map(overlay, OVERLAYS):
        for pod in map(pod_of, objects):
            for one in containers(pod) if pod else []:
                if "tensorflow" not in one["image"] and "digitgan/models" not in one["image"] and "args" in one:
                    yield tuple(one["args"])


@pytest.mark.parametrize("words", sorted(set(commands())), ids=" ".join)
def test_a_command_of_a_manifest_exists(words: tuple[str, ...]) -> None:
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    command.make_context("digitgan", rest)


def test_publishing_evaluates_before_it_promotes_each_model() -> None:
    pod = pod_of(find(overlay("publish"), "Job", "publish"))
    steps = [one["args"] for one in containers(pod)]
    assert [words[0] for words in steps] == ["export", "evaluate", "models", "models", "models"]
    assert sorted(words[2] for words in steps[2:]) == sorted(MODELS)
