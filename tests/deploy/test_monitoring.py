"""What ships for monitoring, with the real programs: Prometheus reads real services, alerts reach a webhook."""

from __future__ import annotations

import io
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from dulian.store import ModelStore
from tests.deploy.programs import DEPLOY, free_ports, is_open, needed, program, replaced
from tests.promises.cgroup import Unavailable, memory_group
from tests.promises.harness import Server, dulian_server
from tests.service.services import PATIENCE_S, wait_until

MONITORING = DEPLOY / "monitoring"
RULES = yaml.safe_load((MONITORING / "rules.yml").read_text())
DASHBOARD = json.loads((MONITORING / "grafana/dashboard.json").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"]: rule for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
# Nothing of these need have happened.
MAY_BE_EMPTY = {
    "拒绝/秒，按原因 · Refusals/s by reason",
    "gRPC 调用/秒 · Calls/s",
    "gRPC 响应时间 · Latency",
    "annotation",
}


# ── files ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")],
    ids=" ".join,
)
def test_promtool_finds_no_fault(arguments: tuple[str, ...]) -> None:
    said = subprocess.run(
        [needed("promtool", "prometheus"), *arguments], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_amtool_finds_no_fault() -> None:
    command = [needed("amtool", "prometheus-alertmanager"), "check-config", "alertmanager.yml"]
    said = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_to_fire_and_not_to(alert: str) -> None:
    tests = yaml.safe_load((MONITORING / "rules_test.yml").read_text())["tests"]
    outcomes = {
        bool(case["exp_alerts"]) for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert
    }
    assert outcomes == {True, False}


def test_every_alert_is_described_and_no_other() -> None:
    text = (DEPLOY.parent / "docs/deployment.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(Dulian\w+)` \|", text, re.MULTILINE)) == set(ALERTS)


# ── the dashboard ────────────────────────────────────────────────────────────────────────────────

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TITLES = [panel["title"] for panel in PANELS]


VARIABLES = {"$job": "dulian", "$instance": ".*", "$__rate_interval": "1m"}


def queries() -> list[tuple[str, str]]:
    """Every query of the dashboard, as Grafana would send it, with the title of its panel."""
    asked = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
    asked += [("annotation", one["expr"]) for one in DASHBOARD["annotations"]["list"]]
    return [(title, _filled(expression)) for title, expression in asked]


def _filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def test_panels_lie_side_by_side_and_have_numbers_of_their_own() -> None:
    everything = DASHBOARD["panels"]
    assert DASHBOARD["schemaVersion"] >= 36
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: dict[tuple[int, int], str] = {}
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"], (x, y)


def test_titles_are_short_and_in_both_languages() -> None:
    assert len(set(TITLES)) == len(TITLES)
    for panel in DASHBOARD["panels"]:
        chinese, _, english = panel["title"].partition(" · ")
        assert chinese
        assert re.fullmatch(r"[A-Z][\w/ ]+", english), panel["title"]
        assert len(panel["title"]) <= 40


def test_every_panel_asks_the_chosen_source() -> None:
    source = DASHBOARD["templating"]["list"][0]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    provisioned = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert source["current"]["value"] == provisioned["datasources"][0]["uid"]
    for panel in PANELS:
        targets = panel["targets"]
        assert {one["datasource"]["uid"] for one in [panel, *targets]} == {"${datasource}"}
        assert len({target["refId"] for target in targets}) == len(targets)
        assert panel["type"] == "table" or panel["fieldConfig"]["defaults"]["unit"]


def test_provisioning_names_what_is_there() -> None:
    providers = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/dulian.yaml").read_text())["providers"]
    assert [provider["type"] for provider in providers] == ["file"]


# ── PromQL ───────────────────────────────────────────────────────────────────────────────────────

_WORDS = {"and", "or", "unless", "bool", "offset", "group_left", "group_right"}


def metric_names(expression: str) -> set[str]:
    """Metrics that a PromQL expression asks for."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', expression)
    bare = re.sub(r"\{[^{}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*\b(?!\s*\()(?!:)", bare)) - _WORDS


def test_names_are_found_in_expressions() -> None:
    expression = (
        'sum by (job, le) (rate(a_total{b=~"c|d_total", e="{"}[5m] offset 1m)) / on (f) group_left job:g:rate5m > 0.5'
        " or absent(up) unless vector(0)"
    )
    assert metric_names(expression) == {"a_total", "job:g:rate5m", "up"}


USED = {name: metric_names(rule["expr"]) for name, rule in {**ALERTS, **RECORDED}.items()} | {
    title: set().union(*(metric_names(expression) for other, expression in queries() if other == title))
    for title in (*TITLES, "annotation")
}


# ── the real programs ────────────────────────────────────────────────────────────────────────────


class Sink(ThreadingHTTPServer):
    """Whoever is told of alerts: a webhook on this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _SinkHandler)
        self.alerts: list[dict[str, Any]] = []

    def has(self, name: str, status: str, instance: str) -> bool:
        return any(
            (one["labels"]["alertname"], one["status"], one["labels"].get("instance")) == (name, status, instance)
            for one in self.alerts
        )


class _SinkHandler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        assert self.path == "/alerts"
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.alerts += told["alerts"]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def webhook() -> Iterator[Sink]:
    with Sink() as sink:
        thread = threading.Thread(target=sink.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield sink
        finally:
            sink.shutdown()
            thread.join(PATIENCE_S)


@dataclass
class Watched:
    """Services, the Prometheus that reads them, and who is told."""

    small: Server
    small_instance: str
    limited: str | None  # why its memory is not limited, if so
    instances: list[str]
    prometheus: str
    sink: Sink

    def ask(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.post(f"{self.prometheus}/api/v1/query", data={"query": expression}, timeout=PATIENCE_S).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


def memory_of(instance: str) -> float:
    text = httpx.get(f"http://{instance}/metrics", timeout=PATIENCE_S).text
    found = re.search(r"^dulian_memory_used_bytes ([\d.e+]+)$", text, re.MULTILINE)
    assert found
    return float(found[1])


# A container sees its own group at the place of all groups.
_AS_IN_A_CONTAINER = 'mount --bind "$0" "$1" && shift && exec "$@"'


@contextmanager
def little_memory(limit_bytes: int) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """How to start a process that has so much memory, as in a container; or why none can be started so here."""
    try:
        with memory_group(limit_bytes) as group:
            seen_at = "/sys/fs/cgroup" if group.unified else "/sys/fs/cgroup/memory"
            inside = ("unshare", "--mount", "/bin/sh", "-c", _AS_IN_A_CONTAINER, str(group.path), seen_at)
            wrapper = (*group.wrapper, *inside)
            tried = subprocess.run([*wrapper, "true"], capture_output=True, text=True, check=False)
            yield ((), tried.stderr.strip()) if tried.returncode else (wrapper, None)
    except Unavailable as error:
        yield (), str(error)


def ask_for_all_kinds(url: str, samples: Path) -> None:
    """Good pictures and bad ones on several routes."""
    file = io.BytesIO()
    Image.open(samples / "astronaut.png").convert("RGB").save(file, "JPEG")
    picture = file.getvalue()
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        assert client.post("/v1/analyze", content=picture).status_code == 200
        assert client.post("/v1/analyze?annotate=base64", content=picture).status_code == 200
        assert client.post("/predict", files={"image": ("a.jpg", picture)}).status_code == 200
        assert client.post("/v1/analyze", content=b"no picture").status_code == 415
        assert client.post("/v1/analyze", content=picture[:3000]).status_code in (200, 422)
        client.post("/v1/analyze?max_ms=1", content=picture)
        assert client.get("/").status_code == 200


def write_configuration(folder: Path, targets: list[str], alertmanager: int, sink: int) -> None:
    """The shipped files, with other addresses, and impatient."""
    own = dict(zip(('"127.0.0.1:9181"', '"127.0.0.1:9191"', '"127.0.0.1:9192"'), map(json.dumps, targets), strict=True))
    own |= {"127.0.0.1:9093": f"127.0.0.1:{alertmanager}"}
    own |= {"scrape_interval: 15s": "scrape_interval: 500ms", "evaluation_interval: 15s": "evaluation_interval: 500ms"}
    (folder / "prometheus.yml").write_text(replaced((MONITORING / "prometheus.yml").read_text(), own))
    rules = (MONITORING / "rules.yml").read_text()
    (folder / "rules.yml").write_text(re.sub(r"^( +for:) \w+$", r"\1 1s", rules, flags=re.MULTILINE))
    told = {"group_wait: 30s": "group_wait: 100ms", "group_interval: 5m": "group_interval: 500ms"}
    told |= {"127.0.0.1:9095": f"127.0.0.1:{sink}"}
    (folder / "alertmanager.yml").write_text(replaced((MONITORING / "alertmanager.yml").read_text(), told))


@pytest.fixture(scope="module")
def watched(model_store: ModelStore, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A service of two processes, one whose memory is nearly used up, and all that watches them."""
    prometheus = needed("prometheus", "prometheus")
    manager = needed("prometheus-alertmanager", "prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("monitoring")
    *pair, alone, prometheus_port, manager_port = free_ports(5)
    instances = [f"127.0.0.1:{port}" for port in (alone, *pair)]
    with ExitStack() as stack:
        sink = stack.enter_context(webhook())
        two = ("--workers", "2", "--threads", "1", "--cache-mb", "8", "--metrics-port", str(pair[0]))
        large = stack.enter_context(dulian_server(model_store, *two))
        wrapper, limited = stack.enter_context(little_memory(int(memory_of(instances[1]) / 0.86)))
        one = ("--threads", "1", "--metrics-port", str(alone))
        small = stack.enter_context(dulian_server(model_store, *one, wrapper=wrapper))
        write_configuration(folder, instances, manager_port, sink.server_port)
        commands = (
            (
                manager_port,
                [manager, "--config.file=alertmanager.yml", "--storage.path=told", "--cluster.listen-address="],
            ),
            (prometheus_port, [prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=series"]),
        )
        for port, command in commands:
            listening = f"--web.listen-address=127.0.0.1:{port}"
            log = folder / f"{port}.log"
            stack.enter_context(program([*command, listening], log, ready=partial(is_open, port)))
        found = Watched(small, instances[0], limited, instances, f"http://127.0.0.1:{prometheus_port}", sink)
        wait_until(lambda: len(found.ask('up{job="dulian"} == 1')) == 3)

        def shows() -> bool:
            # With which number a series begins does not count; so it has to grow after it was seen.
            ask_for_all_kinds(large.url, samples)
            return bool(found.ask("job:dulian_answer_seconds:p99_5m > 0"))

        wait_until(shows)
        yield found


@pytest.mark.weights
def test_metrics_of_rules_and_panels_are_those_of_the_service(watched: Watched) -> None:
    known = {"up", "ALERTS", *RECORDED}
    for instance in watched.instances:
        text = httpx.get(f"http://{instance}/metrics", timeout=PATIENCE_S).text
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
            known |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    for who, names in USED.items():
        assert names, who
        assert names <= known, who


@pytest.mark.weights
@pytest.mark.parametrize("name", RECORDED)
def test_what_is_recorded_has_values(watched: Watched, name: str) -> None:
    wait_until(lambda: bool(watched.ask(name)))
    assert {series["metric"]["job"] for series in watched.ask(name)} == {"dulian"}


@pytest.mark.weights
@pytest.mark.parametrize("title", [*TITLES, "annotation"])
def test_panels_have_something_to_show(watched: Watched, title: str) -> None:
    for expression in (expression for other, expression in queries() if other == title):
        watched.ask(expression)  # accepted, whatever comes of it
        wait_until(lambda asked=expression: bool(watched.ask(asked)) or title in MAY_BE_EMPTY)


@pytest.mark.weights
def test_scarce_memory_and_a_lost_process_reach_the_webhook(watched: Watched) -> None:
    """The alert of article 000, from the limit of a cgroup to whoever is to be told; then the process is killed."""
    if watched.limited:
        pytest.skip(f"no process can be given little memory here: {watched.limited}")
    sink, small = watched.sink, watched.small_instance
    wait_until(lambda: sink.has("DulianMemoryHigh", "firing", small))
    told = next(one for one in sink.alerts if one["labels"]["alertname"] == "DulianMemoryHigh")
    assert re.search(r"内存超过 80 % · uses [89]\d(\.\d+)?% of its memory", told["annotations"]["summary"])
    assert not any(one["labels"].get("instance") in watched.instances[1:] for one in sink.alerts)
    assert any(event["event"] == "memory_high" for event in watched.small.events)
    known = len(sink.alerts)
    watched.small.process.kill()
    wait_until(lambda: sink.has("DulianMemoryHigh", "resolved", small))
    wait_until(lambda: sink.has("DulianDown", "firing", small))
    fired = {one["labels"]["alertname"] for one in sink.alerts[known:] if one["status"] == "firing"}
    assert "DulianNobodyAnswers" not in fired
