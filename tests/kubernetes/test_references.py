"""Rendered manifests: every object is in its namespace, and every reference resolves within the rendered set."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kubernetes.rendering import (
    EVERY_COMBINATION,
    K8S,
    OVERLAYS,
    Manifest,
    containers,
    overlay,
    pod_of,
    render_with,
)

NAMESPACE: Final = "digitgan"
CLUSTER_KINDS: Final = ("Namespace",)
FROM_OUTSIDE: Final = {("Secret", "digitgan-tls"), ("Secret", "digitgan-api-keys")}
"""What the operator creates. A README names each."""
RUNNING: Final = ("Deployment", "Job", "Pod")


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_references_of_an_overlay_resolve(name: str) -> None:
    assert list(problems([*overlay(name), *needed_by(name)])) == []


def test_the_references_of_every_combination_of_components_resolve(tmp_path: Path) -> None:
    assert {
        components: found
        for components in EVERY_COMBINATION
        if (found := list(problems(render_with(components, tmp_path))))
    } == {}


def test_a_readme_names_what_comes_from_outside() -> None:
    pages = "".join(page.read_text() for page in K8S.rglob("README.md"))
    assert [name for _, name in sorted(FROM_OUTSIDE) if name not in pages] == []


def needed_by(name: str) -> list[Manifest]:
    """Returns the objects of the other overlays that an overlay needs, as its README says."""
    if name != "publish":
        return []
    service = overlay("production")
    names = set(map(_key, service))
    return [*service, *(each for each in overlay("training") if _key(each) not in names)]


def problems(objects: Sequence[Manifest]) -> Iterator[str]:
    """Gives a sentence for each object outside its namespace, and for each reference that does not resolve."""
    if ("Namespace", NAMESPACE) not in map(_key, objects):
        yield f"Namespace {NAMESPACE} is not there"
    for each in objects:
        expected = None if each["kind"] in CLUSTER_KINDS else NAMESPACE
        if each["metadata"].get("namespace") != expected:
            yield f"{_title(each)} is in the namespace {each['metadata'].get('namespace', 'default')}"
    for each in objects:
        peers = [other for other in objects if other["metadata"].get("namespace") == each["metadata"].get("namespace")]
        for problem in _unresolved(each, peers):
            yield f"{_title(each)}: {problem}"


def _unresolved(each: Manifest, peers: Sequence[Manifest]) -> Iterator[str]:
    names = {*map(_key, peers), *FROM_OUTSIDE}
    for kind, name in _names(each):
        if (kind, name) not in names:
            yield f"{kind} {name} is not there"
    for labels in _pod_selectors(each):
        if not _pods(peers, labels):
            yield f"no pod has the labels {labels}"
    for labels, port in _pod_ports(each):
        if any(port not in _port_names(pod) for pod in _pods(peers, labels)):
            yield f"a pod with the labels {labels} has no port {port}"
    for service, service_port in _service_ports(each):
        found = [other for other in peers if _key(other) == ("Service", service)]
        if any(service_port not in (one.get("name"), one["port"]) for other in found for one in other["spec"]["ports"]):
            yield f"Service {service} has no port {service_port}"
    if each["kind"] == "ServiceMonitor":
        wanted = each["spec"]["selector"]["matchLabels"]
        services = [
            one for one in peers if one["kind"] == "Service" and _has(one["metadata"].get("labels", {}), wanted)
        ]
        if not services:
            yield f"no Service has the labels {wanted}"
        for endpoint in each["spec"]["endpoints"]:
            if any(endpoint["port"] not in [one["name"] for one in other["spec"]["ports"]] for other in services):
                yield f"a Service with the labels {wanted} has no port {endpoint['port']}"
    if pod := pod_of(each):
        yield from _unresolved_in_pod(pod, _labels(each))


def _unresolved_in_pod(pod: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod["volumes"]}
    for one in containers(pod):
        for mount in one.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"container {one['name']} mounts the volume {mount['name']}, which is not there"
        ports = {port["name"] for port in one.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = next(
                (one[probe][how]["port"] for how in ("httpGet", "tcpSocket") if how in (one.get(probe) or {})), None
            )
            if isinstance(port, str) and port not in ports:
                yield f"the {probe} of {one['name']} wants the port {port}, which is not there"
    for constraint in pod.get("topologySpreadConstraints", []):
        if not _has(labels, constraint["labelSelector"]["matchLabels"]):
            yield "a topology spread constraint does not select the pod itself"


def _names(each: Manifest) -> Iterator[tuple[str, str]]:
    """Gives kind and name of each object that this one names."""
    spec = each.get("spec", {})
    if each["kind"] == "HorizontalPodAutoscaler":
        yield spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]
    yield from (("Service", service) for service, _ in _service_ports(each))
    if each["kind"] == "Ingress":
        yield from (("Secret", tls["secretName"]) for tls in spec.get("tls", []))
    if pod := pod_of(each):
        yield "ServiceAccount", pod["serviceAccountName"]
        if "subdomain" in pod:
            yield "Service", pod["subdomain"]
        for volume in pod["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                yield "PersistentVolumeClaim", claim["claimName"]
            if config := volume.get("configMap"):
                yield "ConfigMap", config["name"]
            if secret := volume.get("secret"):
                yield "Secret", secret["secretName"]
        for one in containers(pod):
            for variable in one.get("env", []):
                source = variable.get("valueFrom") or {}
                for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                    if field in source:
                        yield kind, source[field]["name"]


def _pod_selectors(each: Manifest) -> Iterator[Mapping[str, str]]:
    """Gives the labels of each selector of pods in this namespace."""
    spec = each.get("spec", {})
    match each["kind"]:
        case "Service":
            if "selector" in spec:
                yield spec["selector"]
        case "Deployment" | "PodDisruptionBudget":
            yield spec["selector"]["matchLabels"]
        case "NetworkPolicy":
            yield spec["podSelector"].get("matchLabels", {})
            for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
                for peer in (*rule.get("from", []), *rule.get("to", [])):
                    if "podSelector" in peer and "namespaceSelector" not in peer:
                        yield peer["podSelector"].get("matchLabels", {})


def _pod_ports(each: Manifest) -> Iterator[tuple[Mapping[str, str], str]]:
    """Gives the labels of pods, and the name of a port that each of them needs."""
    spec = each.get("spec", {})
    if each["kind"] == "Service" and "selector" in spec:
        for port in spec["ports"]:
            if isinstance(target := port.get("targetPort"), str):
                yield spec["selector"], target
    if each["kind"] == "NetworkPolicy":
        for rule in spec.get("ingress", []):
            for port in rule.get("ports", []):
                if isinstance(port.get("port"), str):
                    yield spec["podSelector"]["matchLabels"], port["port"]


def _service_ports(each: Manifest) -> Iterator[tuple[str, str | int]]:
    """Gives the name of a Service and the port of it that a route leads to."""
    if each["kind"] == "Ingress":
        for rule in each["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                port = path["backend"]["service"]["port"]
                yield path["backend"]["service"]["name"], port.get("name", port.get("number"))
    if each["kind"] == "HTTPRoute":
        for rule in each["spec"]["rules"]:
            for backend in rule.get("backendRefs", []):
                yield backend["name"], backend["port"]


def _pods(peers: Sequence[Manifest], wanted: Mapping[str, str]) -> list[Manifest]:
    return [one for one in peers if one["kind"] in RUNNING and _has(_labels(one), wanted)]


def _labels(workload: Manifest) -> dict[str, str]:
    """Returns the labels of a workload's pods; a Job's pods have its name as a label, too."""
    holder = workload if workload["kind"] == "Pod" else workload["spec"]["template"]
    labels: dict[str, str] = dict(holder["metadata"].get("labels", {}))
    if workload["kind"] == "Job":
        labels["batch.kubernetes.io/job-name"] = workload["metadata"]["name"]
    return labels


def _port_names(workload: Manifest) -> set[str]:
    return {port["name"] for one in containers(pod_of(workload)) for port in one.get("ports", [])}


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return wanted.items() <= labels.items()


def _key(each: Manifest) -> tuple[str, str]:
    return each["kind"], each["metadata"]["name"]


def _title(each: Manifest) -> str:
    return f"{each['kind']} {each['metadata']['name']}"
