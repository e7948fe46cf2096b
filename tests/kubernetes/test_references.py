"""Rendered manifests: every object is in its namespace, every reference resolves, and policies allow connections."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pytest

from tests.kubernetes.rendering import COMPONENTS, K8S, Manifest, containers, every_set, find, in_cluster, pod_of

NAMESPACE: Final = "digitgan"
FROM_OUTSIDE: Final = {("Secret", "digitgan-tls"), ("Secret", "digitgan-api-keys")}
"""What the operator creates. A README names each."""
NAMES: Final = {
    "backendRefs": "Service",
    "claimName": "PersistentVolumeClaim",
    "configMap": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "scaleTargetRef": "Deployment",
    "secretKeyRef": "Secret",
    "secretName": "Secret",
    "service": "Service",
    "serviceAccountName": "ServiceAccount",
    "subdomain": "Service",
}
"""Fields that name another object of this kind: as a string, or in ``name``."""
POD_SELECTORS: Final = ("labelSelector", "podSelector", "selector")
"""Fields that select pods, except in a ServiceMonitor, which selects Services."""

ELSEWHERE, COLLECTORS, PROMETHEUS = "elsewhere", "observability", "monitoring"
"""Other namespaces. ELSEWHERE stands for all addresses outside the cluster, too."""
GATEWAY, SERVER, ROLL_OUT = "Deployment/gateway", "Deployment/model-server", "Deployment/roll-out"
TRAIN, WORKERS, DATA, PUBLISH = "Job/train", "Job/train-workers", "Job/data", "Job/publish"
DNS: Final = ("53/UDP", "53/TCP", "5353/UDP", "5353/TCP")
"""5353 is OpenShift's. DNS is in kube-system, in another namespace, or on the node."""

ALL: Final = " ".join(["base", *COMPONENTS])
CASES: Final = (
    (ALL, ELSEWHERE, GATEWAY, "8000/TCP", True),
    (ALL, GATEWAY, SERVER, "8500/TCP", True),
    (ALL, GATEWAY, COLLECTORS, "4317/TCP", True),
    (ALL, PROMETHEUS, SERVER, "8501/TCP", True),
    (ALL, ROLL_OUT, SERVER, "8500/TCP", True),
    (ALL, GATEWAY, SERVER, "8501/TCP", False),
    (ALL, SERVER, GATEWAY, "8000/TCP", False),
    (ALL, ROLL_OUT, GATEWAY, "8000/TCP", False),
    (ALL, ELSEWHERE, SERVER, "8500/TCP", False),
    (ALL, PROMETHEUS, SERVER, "8500/TCP", False),
    (ALL, GATEWAY, ELSEWHERE, "443/TCP", False),
    (ALL, SERVER, ELSEWHERE, "443/TCP", False),
    # NCCL takes any port.
    ("training-workers", WORKERS, WORKERS, "2222/TCP", True),
    ("training-workers", WORKERS, WORKERS, "40123/TCP", True),
    ("training-workers", ELSEWHERE, WORKERS, "2222/TCP", False),
    ("training-workers", WORKERS, ELSEWHERE, "443/TCP", False),
    ("training-workers", DATA, ELSEWHERE, "443/TCP", True),
    ("publish", PUBLISH, SERVER, "8500/TCP", True),
    ("publish", TRAIN, SERVER, "8500/TCP", False),
    *((ALL, one, ELSEWHERE, port, True) for one in (GATEWAY, SERVER, ROLL_OUT) for port in DNS),
    *(("training-workers", one, ELSEWHERE, port, True) for one in (WORKERS, DATA) for port in DNS),
    *(("publish", one, ELSEWHERE, port, True) for one in (TRAIN, PUBLISH) for port in DNS),
)


@every_set
def test_each_reference_resolves(name: str) -> None:
    objects = in_cluster(name)
    known = {*((each["kind"], each["metadata"]["name"]) for each in objects), *FROM_OUTSIDE}
    assert ("Namespace", NAMESPACE) in known
    for each in objects:
        assert each["metadata"].get("namespace") == (None if each["kind"] == "Namespace" else NAMESPACE), each
        for field, value, beside in _fields(each.get("spec", {})):
            if kind := NAMES.get(field):
                assert (kind, value if isinstance(value, str) else value["name"]) in known, each
            if field in POD_SELECTORS and "namespaceSelector" not in beside:
                selected = _services if each["kind"] == "ServiceMonitor" else _workloads
                assert selected(objects, value), f"nothing has the labels {value}"
        for one in containers([each]):
            volumes = {volume["name"] for volume in pod_of(each)["volumes"]}
            assert {mount["name"] for mount in one.get("volumeMounts", [])} <= volumes, each


@every_set
def test_each_port_exists(name: str) -> None:
    objects = in_cluster(name)
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "Service" and "selector" in spec:
            for workload in _workloads(objects, spec["selector"]):
                ports = [port for one in containers([workload]) for port in one.get("ports", [])]
                targets = {port.get("targetPort", port["port"]) for port in spec["ports"]}
                assert targets <= {known[field] for known in ports for field in known}, each
        for field, value, _ in _fields(spec):
            if field in ("backendRefs", "service"):
                ports = find(objects, "Service", value["name"])["spec"]["ports"]
                wanted = value["port"].get("name") if field == "service" else value["port"]
                assert any(wanted in (port["name"], port["port"]) for port in ports), each
            if field == "endpoints":
                for service in _services(objects, spec["selector"]):
                    assert value["port"] in [port["name"] for port in service["spec"]["ports"]], each
        for one in containers([each]):
            probes = [one.get(f"{probe}Probe") or {} for probe in ("startup", "liveness", "readiness")]
            wanted = {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe}
            assert wanted <= {port["name"] for port in one.get("ports", [])}, each


def test_a_readme_names_what_comes_from_outside() -> None:
    pages = "".join(page.read_text() for page in K8S.rglob("README.md"))
    assert [name for _, name in sorted(FROM_OUTSIDE) if name not in pages] == []


@pytest.mark.parametrize(("name", "source", "target", "port", "allowed"), CASES)
def test_a_connection_is_allowed_or_not(name: str, source: str, target: str, port: str, allowed: bool) -> None:
    objects = in_cluster(name)
    egress = _allows(objects, "egress", source, target, _names_of(objects, target, port))
    ingress = _allows(objects, "ingress", target, source, _names_of(objects, target, port))
    assert (egress and ingress) is allowed


def _fields(content: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Gives each field of an object, at any depth, with the fields beside it. A list's items have the list's name."""
    for field, value in content.items() if isinstance(content, dict) else ():
        for item in value if isinstance(value, list) else [value]:
            yield field, item, content
            yield from _fields(item)


def _workloads(objects: Sequence[Manifest], selector: Mapping[str, Any]) -> list[Manifest]:
    return [one for one in objects if pod_of(one) and _selects(selector, _labels_of(one))]


def _services(objects: Sequence[Manifest], selector: Mapping[str, Any]) -> list[Manifest]:
    return [one for one in objects if one["kind"] == "Service" and _selects(selector, one["metadata"]["labels"])]


def _labels_of(workload: Manifest) -> dict[str, str]:
    """Returns the labels of a workload's pods. A Job's pods have its name as a label, too."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return {**labels, "batch.kubernetes.io/job-name": workload["metadata"]["name"]}


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return dict(selector.get("matchLabels", selector)).items() <= labels.items()


def _allows(objects: Sequence[Manifest], direction: str, pod: str, peer: str, ports: set[tuple[object, str]]) -> bool:
    """Says whether the policies of a pod allow a connection. A pod without policies allows all."""
    if "/" not in pod:
        return True
    specs = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    specs = [spec for spec in specs if _selects(spec["podSelector"], _labels_of(find(objects, *pod.split("/"))))]
    rules = [rule for spec in specs for rule in spec.get(direction, [])]
    peers = "to" if direction == "egress" else "from"
    return not any(direction.capitalize() in spec["policyTypes"] for spec in specs) or any(
        ("ports" not in rule or ports & {(one["port"], one.get("protocol", "TCP")) for one in rule["ports"]})
        and (peers not in rule or any(_is(objects, peer, one) for one in rule[peers]))
        for rule in rules
    )


def _is(objects: Sequence[Manifest], peer: str, wanted: Manifest) -> bool:
    if "/" in peer:
        return "podSelector" in wanted and _selects(wanted["podSelector"], _labels_of(find(objects, *peer.split("/"))))
    namespace = {"kubernetes.io/metadata.name": peer}
    return "namespaceSelector" in wanted and _selects(wanted["namespaceSelector"], namespace)


def _names_of(objects: Sequence[Manifest], target: str, port: str) -> set[tuple[object, str]]:
    """Returns a port's number and its name in the target's containers, each with the protocol."""
    number, protocol = port.split("/")
    pods = [find(objects, *target.split("/"))] if "/" in target else []
    known = [each for one in containers(pods) for each in one.get("ports", [])]
    return {(int(number), protocol), *((one["name"], protocol) for one in known if one["containerPort"] == int(number))}
