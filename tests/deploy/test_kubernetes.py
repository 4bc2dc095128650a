"""The manifests: by the schemas of Kubernetes, and held against the service and against each other."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from dulian.batch.drivers.local import lay_out
from dulian.cli.app import exit_code
from dulian.cli.batch.asked import parse_share
from dulian.errors import DestinationError, JobChangedError, MalformedInputError
from dulian.service.metrics import Metrics
from dulian.settings import Settings
from tests.deploy.commands import parse, settings_of
from tests.deploy.programs import DEPLOY, needed

FOLDER = DEPLOY / "kubernetes"
# Not for the API server.
OTHERS = {"kustomization.yaml", "prometheus-adapter.yaml"}
# For the API server, but not part of the service.
APART = {"batch-job.yaml"}
MANIFESTS: dict[str, Any] = {
    file.name: yaml.safe_load(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.yaml"))
}
# The oldest that its makers still look after, and the newest that the schemas know.
VERSIONS = ("1.31", kubernetes_validate.latest_version())
LABELS = {"app.kubernetes.io/name": "dulian"}
POD: dict[str, Any] = MANIFESTS["deployment.yaml"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", sorted(MANIFESTS.keys() - OTHERS))
def test_the_schema_is_kept(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**MANIFESTS[name], "spec": {"nonsense": 1}}, version, strict=True)


def test_kustomize_names_all_of_them() -> None:
    assert set(MANIFESTS["kustomization.yaml"]["resources"]) == MANIFESTS.keys() - OTHERS - APART


def test_kubectl_puts_them_together() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on this machine, so kustomize is not tried")
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    assert {one["kind"] for one in made} == {
        one["kind"] for name, one in MANIFESTS.items() if name not in OTHERS | APART
    }
    for one in made:
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    assert "image: dulian:0.1.0" in done.stdout


def test_everything_means_the_same_pods() -> None:
    """An empty selector would mean every pod of the namespace."""
    assert POD["metadata"]["labels"] == LABELS
    selectors = [
        MANIFESTS["deployment.yaml"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["service.yaml"]["spec"]["selector"],
        MANIFESTS["pdb.yaml"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["networkpolicy.yaml"]["spec"]["podSelector"]["matchLabels"],
        POD["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert selectors == [LABELS] * len(selectors)
    target = MANIFESTS["hpa.yaml"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", MANIFESTS["deployment.yaml"]["metadata"]["name"])
    assert "replicas" not in MANIFESTS["deployment.yaml"]["spec"]


def test_the_service_starts_with_these_settings() -> None:
    environment = {one["name"]: one["value"] for one in CONTAINER["env"]}
    settings = settings_of(environment)
    assert parse(CONTAINER["args"]) == "dulian serve"
    assert {"http": settings.port, "metrics": settings.metrics_port} == PORTS
    assert not settings.insecure
    keys = next(one for one in CONTAINER["volumeMounts"] if one["name"] == "keys")
    assert settings.keys_file == Path(keys["mountPath"], "keys.json")
    assert {one["name"] for one in CONTAINER["volumeMounts"]} == {one["name"] for one in POD["spec"]["volumes"]}
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(settings.metrics_port)


def test_probes_ask_the_port_that_does_not_wait_behind_clients() -> None:
    paths = {}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = CONTAINER[name]["httpGet"]
        assert asked["port"] == "metrics"
        paths[name] = asked["path"]
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    # A pod that is about to end is noticed while it still answers.
    ready = CONTAINER["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"] < Settings().grace_s
    assert POD["spec"]["terminationGracePeriodSeconds"] > Settings().grace_s + 30
    assert "lifecycle" not in CONTAINER


def test_the_pod_is_locked_in() -> None:
    of_pod, of_container = POD["spec"]["securityContext"], CONTAINER["securityContext"]
    assert (of_pod["runAsNonRoot"], of_pod["runAsUser"], of_pod["fsGroup"]) == (True, 10001, 10001)
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container["readOnlyRootFilesystem"] is True
    assert of_container["allowPrivilegeEscalation"] is False
    assert of_container["capabilities"] == {"drop": ["ALL"]}
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert POD["spec"]["enableServiceLinks"] is False


def test_traffic_is_let_in_where_it_is_served() -> None:
    policy = MANIFESTS["networkpolicy.yaml"]["spec"]
    named = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert named == PORTS.keys()
    # Metrics have no key of their own.
    (metrics,) = [rule for rule in policy["ingress"] if rule["ports"] == [{"port": "metrics"}]]
    assert metrics["from"]
    assert policy["egress"] == []
    (port,) = MANIFESTS["service.yaml"]["spec"]["ports"]
    assert port["targetPort"] in PORTS


# ── a batch ──────────────────────────────────────────────────────────────────────────────────────

JOB: dict[str, Any] = MANIFESTS["batch-job.yaml"]
BATCH_POD: dict[str, Any] = JOB["spec"]["template"]
(BATCH,) = BATCH_POD["spec"]["containers"]


def test_every_pod_of_the_batch_has_a_share_of_its_own() -> None:
    completions = JOB["spec"]["completions"]
    assert JOB["spec"]["completionMode"] == "Indexed"
    shares = []
    for index in range(completions):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in BATCH["args"]]
        assert parse(words) == "dulian batch run"
        shares.append(parse_share(words[words.index("--shard") + 1]))
    assert shares == [(index, completions) for index in range(completions)]
    assert JOB["spec"]["maxFailedIndexes"] <= completions
    # Without sources: one process has listed, and none of the pods may make another job of it.
    assert BATCH["args"][:3] == ["batch", "run", "--output"]
    assert len(BATCH["args"]) == 6
    assert settings_of({one["name"]: one["value"] for one in BATCH["env"]}).offline


def test_only_what_a_second_try_mends_is_tried_again() -> None:
    ignored, failed = JOB["spec"]["podFailurePolicy"]["rules"]
    assert (ignored["action"], ignored["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert failed["action"] == "FailJob"
    assert failed["onExitCodes"]["containerName"] == BATCH["name"]
    assert failed["onExitCodes"]["values"] == [exit_code(MalformedInputError())] == [exit_code(JobChangedError())]
    assert exit_code(DestinationError()) not in failed["onExitCodes"]["values"]
    assert BATCH_POD["spec"]["restartPolicy"] == "Never"


def test_pods_of_a_batch_are_locked_in_and_get_no_traffic() -> None:
    assert BATCH_POD["spec"]["securityContext"] == POD["spec"]["securityContext"]
    assert BATCH["securityContext"] == CONTAINER["securityContext"]
    for name in ("automountServiceAccountToken", "enableServiceLinks"):
        assert BATCH_POD["spec"][name] is False
    assert BATCH_POD["metadata"]["labels"] != LABELS
    assert {one["name"] for one in BATCH["volumeMounts"]} == {one["name"] for one in BATCH_POD["spec"]["volumes"]}


def test_a_pod_of_a_batch_has_memory_for_a_process_per_core() -> None:
    limits = BATCH["resources"]["limits"]
    gibibytes = int(limits["memory"].removesuffix("Gi"))
    assert lay_out(int(limits["cpu"]), gibibytes * 2**30) == (int(limits["cpu"]), 1)


# ── how many ─────────────────────────────────────────────────────────────────────────────────────


def rule() -> dict[str, Any]:
    (only,) = MANIFESTS["prometheus-adapter.yaml"]["rules"]["custom"]
    return dict(only)


def test_the_autoscaler_goes_by_a_metric_that_is_made_of_ones_that_exist() -> None:
    pods, processor = MANIFESTS["hpa.yaml"]["spec"]["metrics"]
    assert pods["pods"]["metric"]["name"] == rule()["name"]["as"]
    # The processor's share is of what a pod may take.
    limit = int(CONTAINER["resources"]["limits"]["cpu"]) * 1000
    assert 0 < int(processor["resource"]["target"]["averageValue"].removesuffix("m")) < limit
    exported = asyncio.run(Metrics().scrape()).decode()
    assert all(f"\ndulian_queue_wait_seconds_{kind} " in exported for kind in ("count", "sum"))
    assert rule()["seriesQuery"].startswith("dulian_queue_wait_seconds_count{")


def test_prometheus_understands_the_query(tmp_path: Path) -> None:
    promtool = needed("promtool", "prometheus")
    query = rule()["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="faces"')
    assert "<<" not in query
    rules = {"groups": [{"name": "adapter", "rules": [{"record": rule()["name"]["as"], "expr": query}]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    # Two pods: one whose pictures waited 2 s in 10 pictures a minute, and one that nobody asks.
    series = [
        {"series": f'dulian_queue_wait_seconds_{kind}{{namespace="faces",pod="{pod}"}}', "values": f"0+{step}x10"}
        for pod, kind, step in (("a", "sum", 2), ("a", "count", 10), ("b", "sum", 0), ("b", "count", 0))
    ]
    expected = [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in (("a", 0.2), ("b", 0.0))]
    test = {"expr": query, "eval_time": "8m", "exp_samples": expected}
    tests = {
        "rule_files": ["rules.yml"],
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [test]}],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "tests.yml")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
