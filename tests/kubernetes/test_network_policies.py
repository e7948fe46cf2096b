"""NetworkPolicies: which connections the rendered sets allow, by the rules of Kubernetes."""

from collections.abc import Sequence
from typing import Final

import pytest

from tests.kubernetes.rendering import COMPONENTS, Manifest, containers, find, in_cluster
from tests.kubernetes.test_references import labels_of, selects

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


@pytest.mark.parametrize(("name", "source", "target", "port", "allowed"), CASES)
def test_a_connection_is_allowed_or_not(name: str, source: str, target: str, port: str, allowed: bool) -> None:
    objects = in_cluster(name)
    egress = _allows(objects, "egress", source, target, _names_of(objects, target, port))
    ingress = _allows(objects, "ingress", target, source, _names_of(objects, target, port))
    assert (egress and ingress) is allowed


def _allows(objects: Sequence[Manifest], direction: str, pod: str, peer: str, ports: set[tuple[object, str]]) -> bool:
    """Says whether the policies of a pod allow a connection. A pod without policies allows all."""
    if "/" not in pod:
        return True
    specs = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    specs = [spec for spec in specs if selects(spec["podSelector"], labels_of(find(objects, *pod.split("/"))))]
    rules = [rule for spec in specs for rule in spec.get(direction, [])]
    peers = "to" if direction == "egress" else "from"
    return not any(direction.capitalize() in spec["policyTypes"] for spec in specs) or any(
        ("ports" not in rule or ports & {(one["port"], one.get("protocol", "TCP")) for one in rule["ports"]})
        and (peers not in rule or any(_is(objects, peer, one) for one in rule[peers]))
        for rule in rules
    )


def _is(objects: Sequence[Manifest], peer: str, wanted: Manifest) -> bool:
    if "/" in peer:
        return "podSelector" in wanted and selects(wanted["podSelector"], labels_of(find(objects, *peer.split("/"))))
    namespace = {"kubernetes.io/metadata.name": peer}
    return "namespaceSelector" in wanted and selects(wanted["namespaceSelector"], namespace)


def _names_of(objects: Sequence[Manifest], target: str, port: str) -> set[tuple[object, str]]:
    """Returns a port's number and its name in the target's containers, each with the protocol."""
    number, protocol = port.split("/")
    pods = [find(objects, *target.split("/"))] if "/" in target else []
    known = [each for one in containers(pods) for each in one.get("ports", [])]
    return {(int(number), protocol), *((one["name"], protocol) for one in known if one["containerPort"] == int(number))}
