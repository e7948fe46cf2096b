"""Rendered manifests: every object is in its namespace, and every reference resolves within the rendered set."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.kubernetes.rendering import K8S, Manifest, containers, every_set, needed_by, objects_of, pod_of

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
    assert list(problems([*objects_of(name), *needed_by(name)])) == []


def test_a_readme_names_what_comes_from_outside() -> None:
    pages = "".join(page.read_text() for page in K8S.rglob("README.md"))
    assert [name for _, name in sorted(FROM_OUTSIDE) if name not in pages] == []


def problems(objects: Sequence[Manifest]) -> Iterator[str]:
    """Gives a sentence for each object outside its namespace, and for each reference that does not resolve."""
    if ("Namespace", NAMESPACE) not in map(_key, objects):
        yield f"Namespace {NAMESPACE} is not there"
    for each in objects:
        expected = None if each["kind"] == "Namespace" else NAMESPACE
        if each["metadata"].get("namespace") != expected:
            yield f"{_key(each)} is in the namespace {each['metadata'].get('namespace', 'default')}"
        for problem in (*_names(each, objects), *_pods(each, objects), *_ports(each, objects)):
            yield f"{_key(each)}: {problem}"


def _names(each: Manifest, objects: Sequence[Manifest]) -> Iterator[str]:
    known = {*map(_key, objects), *FROM_OUTSIDE}
    for field, value, _ in _fields(each.get("spec", {})):
        if kind := NAMES.get(field):
            name = value if isinstance(value, str) else value["name"]
            if (kind, name) not in known:
                yield f"{kind} {name} is not there"
    if pod := pod_of(each):
        volumes = {volume["name"] for volume in pod["volumes"]}
        for one in containers([each]):
            for mount in one.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{one['name']} mounts the volume {mount['name']}, which is not there"


def _pods(each: Manifest, objects: Sequence[Manifest]) -> Iterator[str]:
    chosen = _services if each["kind"] == "ServiceMonitor" else _workloads
    for field, value, beside in _fields(each.get("spec", {})):
        if field in POD_SELECTORS and "namespaceSelector" not in beside and not chosen(objects, value):
            yield f"nothing has the labels {value}"


def _ports(each: Manifest, objects: Sequence[Manifest]) -> Iterator[str]:
    """Gives a sentence for each port that a Service, a pod or a container does not have."""
    spec = each.get("spec", {})
    if each["kind"] == "Service" and "selector" in spec:  # test_network_policies.py has those of NetworkPolicies
        for workload in _workloads(objects, spec["selector"]):
            ports = [port for one in containers([workload]) for port in one.get("ports", [])]
            for port in spec["ports"]:
                if port.get("targetPort", port["port"]) not in {known[field] for known in ports for field in known}:
                    yield f"{_key(workload)} has no port {port}"
    for field, value, _ in _fields(spec):
        if field in ("backendRefs", "service"):
            services = [one for one in objects if _key(one) == ("Service", value["name"])]
            wanted = value["port"].get("name") if field == "service" else value["port"]
            if not any(wanted in (port["name"], port["port"]) for one in services for port in one["spec"]["ports"]):
                yield f"Service {value['name']} has no port {wanted}"
        if field == "endpoints":
            for service in _services(objects, spec["selector"]):
                if value["port"] not in [port["name"] for port in service["spec"]["ports"]]:
                    yield f"{_key(service)} has no port {value['port']}"
    for one in containers([each]):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = (one.get(probe) or {}).get("httpGet", {}).get("port")
            if port and port not in [known["name"] for known in one["ports"]]:
                yield f"the {probe} of {one['name']} needs the port {port}, which is not there"


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


def _key(each: Manifest) -> tuple[str, str]:
    return each["kind"], each["metadata"]["name"]
