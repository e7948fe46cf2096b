"""Rendered manifests: every object is in its namespace, and every reference resolves within the rendered set."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.kubernetes.rendering import K8S, Manifest, containers, every_set, find, in_cluster, pod_of

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
    """test_network_policies.py has those of NetworkPolicies."""
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


def _fields(content: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Gives each field of an object, at any depth, with the fields beside it. A list's items have the list's name."""
    for field, value in content.items() if isinstance(content, dict) else ():
        for item in value if isinstance(value, list) else [value]:
            yield field, item, content
            yield from _fields(item)


def _workloads(objects: Sequence[Manifest], selector: Mapping[str, Any]) -> list[Manifest]:
    return [one for one in objects if pod_of(one) and selects(selector, labels_of(one))]


def _services(objects: Sequence[Manifest], selector: Mapping[str, Any]) -> list[Manifest]:
    return [one for one in objects if one["kind"] == "Service" and selects(selector, one["metadata"]["labels"])]


def labels_of(workload: Manifest) -> dict[str, str]:
    """Returns the labels of a workload's pods. A Job's pods have its name as a label, too."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels | {"batch.kubernetes.io/job-name": workload["metadata"]["name"]}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted: Mapping[str, str] = selector.get("matchLabels", selector)
    return wanted.items() <= labels.items()
