"""The Kubernetes manifests: as kustomize puts them together, checked against Kubernetes' schemas and against the image."""

import subprocess

import kubernetes_validate
import pytest
import yaml
from conftest import ROOT

KUBERNETES = ROOT / "packaging/kubernetes"
# `preStop.sleep` is the newest field that the manifests use: Kubernetes has it by default since 1.30.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]


def objects(overlay):
    """What an overlay makes, by kind."""
    made = subprocess.run(["kubectl", "kustomize", KUBERNETES / "overlays" / overlay], capture_output=True, text=True, check=True)
    found = list(yaml.safe_load_all(made.stdout))
    by_kind = {item["kind"]: item for item in found}
    assert len(by_kind) == len(found)
    return by_kind


@pytest.mark.parametrize(
    ("overlay", "kinds"),
    [
        ("postgres", {"ConfigMap", "Service", "Deployment", "PodDisruptionBudget", "Job"}),
        ("sqlite", {"ConfigMap", "Service", "StatefulSet"}),
    ],
)
def test_manifests_follow_the_schemas_of_kubernetes(overlay, kinds):
    made = objects(overlay)
    assert set(made) == kinds
    for item in made.values():
        for version in VERSIONS:
            kubernetes_validate.validate(item, version, strict=True)


def pods(overlay):
    return {kind: item["spec"]["template"] for kind, item in objects(overlay).items() if "template" in item.get("spec", {})}


@pytest.mark.parametrize("overlay", ["postgres", "sqlite"])
def test_pods_have_no_rights_and_their_settings_from_where_they_belong(overlay):
    settings = objects(overlay)["ConfigMap"]
    assert settings["data"]["ALDABA_WEBHOOKS__AUTO_DISABLE_AFTER"] == "1h"
    for template in pods(overlay).values():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        rights = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == rights
        assert container["resources"]["limits"]["memory"] and "cpu" not in container["resources"]["limits"]
        assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
        secret = {entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in container["env"] if "valueFrom" in entry}
        expected = {"ALDABA_DATABASE_URL": "database-url", "ALDABA_SECRETS__MASTER_KEY": "master-key"}
        assert secret == (expected if overlay == "postgres" else {})


@pytest.mark.parametrize(("overlay", "kind"), [("postgres", "Deployment"), ("sqlite", "StatefulSet")])
def test_a_node_has_probes_and_time_to_stop_and_the_service_finds_it(overlay, kind):
    made = objects(overlay)
    template = made[kind]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    # Two minutes of webhooks.timeout, the wait before the stop, and what is written at the end.
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert template["spec"]["terminationGracePeriodSeconds"] >= 120 + 2 + before + 10
    labels = template["metadata"]["labels"].items()
    selectors = [made["Service"]["spec"]["selector"], made[kind]["spec"]["selector"]["matchLabels"]]
    if overlay == "postgres":
        selectors.append(made["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
        job = made["Job"]["spec"]["template"]["metadata"]["labels"].items()
        assert not selectors[0].items() <= job, "the service does not call the migration"
    for selector in selectors:
        assert selector.items() <= labels
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in made["Service"]["spec"]["ports"]} <= ports
