"""docker-compose.yml, Dockerfile and .env.example agree and are complete."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import compose, packages
from tests.conftest import free_port
from workers.stack.processes import Processes, wait_for_port
from workers.stack.stack import WEBSOCKET_OPTIONS

ROOT = compose.ROOT
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVER_PARTS = ("web", "coordinator", "beat", "aggregate", "migrate")
PROXIES = ("caddy", "nginx", "redirect")
ONE_SHOT = ("migrate",)
DIGEST = r"@sha256:[0-9a-f]{64}"


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return compose.services(compose.example_env())


def test_every_part_of_the_design_is_there(services: dict[str, Any]) -> None:
    assert set(services) == {*SERVER_PARTS, *PROXIES, "valkey", "postgres", "device"}


def test_every_service_is_watched(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name not in ONE_SHOT:
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_images_are_pinned(services: dict[str, Any]) -> None:
    """By an exact version, which people read, and a digest, which cannot change."""
    for name, service in services.items():
        if "build" not in service:
            pinned = re.fullmatch(rf"[\w/]+:\d+\.\d+[\w.-]*{DIGEST}", service["image"])
            assert pinned, f"{name} runs {service['image']}"
    (base,) = re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(rf"python:\d+\.\d+\.\d+-[\w-]+{DIGEST}", base)


def test_what_is_built_has_a_target(services: dict[str, Any]) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    built = {service["build"]["target"] for service in services.values() if "build" in service}
    assert built == {"web", "worker", "device"}
    assert built <= targets


def test_only_aggregation_has_torch_on_the_server(services: dict[str, Any]) -> None:
    built = {name: services[name]["build"]["target"] for name in SERVER_PARTS}
    assert {name for name, target in built.items() if target == "worker"} == {"aggregate"}
    web = re.search(r"AS web-packages\n(.*?)\n\n", DOCKERFILE, re.DOTALL)
    assert web is not None
    assert re.findall(r"requirements[\w-]*\.txt", web[1]) == ["requirements-web.txt"] * 2
    assert "requirements.txt" not in DOCKERFILE, "it has what only the demo needs"


def test_backup_has_the_client_of_the_database(services: dict[str, Any]) -> None:
    server = re.search(r"postgres:(\d+)", services["postgres"]["image"])
    client = re.search(r"postgresql-client-(\d+)", DOCKERFILE)
    assert server is not None and client is not None
    assert server[1] == client[1]


def test_containers_are_hardened(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["logging"]["driver"] == "json-file", name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        assert "privileged" not in service, name
    added = {name: service["cap_add"] for name, service in services.items() if "cap_add" in service}
    assert added == {
        "caddy": ["NET_BIND_SERVICE"],
        "redirect": ["NET_BIND_SERVICE"],
        "nginx": ["CHOWN", "SETGID", "SETUID"],
    }


def test_only_proxies_publish_a_port(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"caddy": ["443:443"], "nginx": ["443:443"], "redirect": ["80:80"]}
    for name in ports:
        assert services[name]["profiles"] == [name]
        assert services[name]["networks"] == ["access"]
    assert compose.example_env()["COMPOSE_PROFILES"] == "caddy"


def test_database_and_broker_have_a_network_of_their_own(services: dict[str, Any]) -> None:
    assert compose.networks({})["back"] == {"internal": True}
    inside = {name for name, service in services.items() if "back" in service.get("networks", [])}
    assert inside == {*SERVER_PARTS, "valkey", "postgres"}
    for name in ("valkey", "postgres"):
        assert services[name]["networks"] == ["back"]
    assert "@valkey:" in services["web"]["environment"]["REDIS_URL"]


def test_only_the_proxys_network_is_trusted(services: dict[str, Any]) -> None:
    subnets = [item["subnet"] for item in compose.networks({})["access"]["ipam"]["config"]]
    assert services["web"]["environment"]["EDGEWISE_TRUSTED_PROXIES"].split(",") == subnets
    assert "--no-proxy-headers" in compose.command_line(services["web"])
    inside = {name for name, service in services.items() if "access" in service.get("networks", [])}
    assert inside == {"web", *PROXIES}
    assert services["web"]["networks"] == sorted(services["web"]["networks"]), "see the file"


def test_web_keeps_the_lines_of_devices_alive(services: dict[str, Any]) -> None:
    """As the stack on one machine does."""
    words = compose.command_line(services["web"])
    options = dict(word.split("=", 1) for word in words if word.startswith("--ws"))
    pairs = zip(WEBSOCKET_OPTIONS[::2], WEBSOCKET_OPTIONS[1::2], strict=True)
    assert options == dict(pairs)


def test_commands_name_what_exists(services: dict[str, Any]) -> None:
    for name in SERVER_PARTS:
        words = compose.command_line(services[name])
        if words[0] == "python":
            assert (ROOT / words[1]).exists(), name
            continue
        module = next(w for w in words if re.match(r"(--app=)?(webapp|workers)\.", w))
        module = module.removeprefix("--app=").partition(":")[0]
        assert importlib.util.find_spec(module.rpartition(".")[0]), name
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), name


def test_mounted_and_checked_scripts_exist(services: dict[str, Any]) -> None:
    made_later = ("./deploy/certs", "./device-data")
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and not source.startswith(made_later):
                assert (ROOT / source).exists(), name
        for word in service.get("healthcheck", {}).get("test", []):
            if word.startswith("deploy/"):
                assert (ROOT / word).exists(), name


def test_one_beat(services: dict[str, Any]) -> None:
    """Two clocks would be harmless but wasteful; the worker must not carry another."""
    beats = [name for name in SERVER_PARTS if "beat" in compose.command_line(services[name])]
    assert beats == ["beat"]
    assert "-B" not in compose.command_line(services["coordinator"])


def test_a_device_gets_none_of_the_servers_secrets(services: dict[str, Any]) -> None:
    assert "env_file" not in services["device"]
    assert not any(
        "PASSWORD" in key or "SECRET" in key for key in services["device"]["environment"]
    )


def test_a_start_without_secrets_is_refused() -> None:
    with pytest.raises(KeyError, match=r"make-env\.sh"):
        compose.services({})


def test_the_example_names_every_variable() -> None:
    text = (ROOT / ".env.example").read_text()
    documented = set(re.findall(r"^#?([A-Z0-9_]+)=", text, re.MULTILINE))
    optional = {"EDGEWISE_VERSION", "DEVICE_DATA", "DEVICE_CA_FILE", "DEVICE_THREADS"}
    assert compose.variables() - documented == optional


def test_the_image_starts_what_the_service_starts(services: dict[str, Any]) -> None:
    for name, target in (("web", "web"), ("aggregate", "worker")):
        command = re.search(r"^CMD (\[.*\])$", _stage(target), re.MULTILINE)
        assert command is not None
        assert json.loads(command[1]) == compose.command_line(services[name])


def _stage(target: str) -> str:
    """The Dockerfile's lines for ``target``, those of the stage below it first."""
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    stage = next(text for text in stages if text.split("\n")[0].endswith(f" AS {target}"))
    below = stage.split()[0]
    return (_stage(below) if f" AS {below}\n" in DOCKERFILE else "") + stage


def test_images_run_as_nobody_special() -> None:
    for target in ("device", "web", "worker"):
        assert re.findall(r"^USER (.*)$", _stage(target), re.MULTILINE) == ["edgewise"]
    for target in ("device", "web"):
        assert "\nHEALTHCHECK " in _stage(target)


def test_the_image_names_no_version_of_a_package() -> None:
    assert "==" not in DOCKERFILE
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    for word in shlex.split(" ".join(copied)):
        assert (ROOT / word).exists(), f"the Dockerfile copies {word}"


def test_scripts_make_an_environment_and_certificates(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    for name in ("make-env.sh", "make-certs.sh"):
        (tmp_path / "deploy" / name).write_bytes((ROOT / "deploy" / name).read_bytes())
    (tmp_path / ".env.example").write_bytes((ROOT / ".env.example").read_bytes())
    _sh(tmp_path, "deploy/make-env.sh", "https://edgewise.test:8443")
    env = dict(
        line.split("=", 1)
        for line in (tmp_path / ".env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    secrets = [value for name, value in env.items() if name.endswith(("_KEY", "_PASSWORD"))]
    assert "change-me" not in env.values()
    assert len(set(secrets)) == 3 and all(len(value) >= 50 for value in secrets)
    assert env["EDGEWISE_URL"] == "https://edgewise.test:8443"
    assert env["SITE_HOST"] == "edgewise.test"
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    with pytest.raises(subprocess.CalledProcessError):  # a second run would lose the secrets
        _sh(tmp_path, "deploy/make-env.sh", "https://edgewise.test")
    compose.services(env)

    certs = tmp_path / "deploy" / "certs"
    _sh(tmp_path, "deploy/make-certs.sh", "edgewise.test", "192.0.2.7")
    authority = (certs / "ca.crt").read_bytes()
    _sh(tmp_path, "deploy/make-certs.sh", "edgewise.test", "other.test")
    assert (certs / "ca.crt").read_bytes() == authority
    assert (certs / "privkey.pem").stat().st_mode & 0o077 == 0
    for host in ("edgewise.test", "other.test", "localhost"):
        check = ["-CAfile", str(certs / "ca.crt"), "-verify_hostname", host]
        subprocess.run(["openssl", "verify", *check, str(certs / "fullchain.pem")], check=True)


def test_broker_asks_for_its_password(tmp_path: Path) -> None:
    if packages.find("redis-server") is None and packages.find("valkey-server") is None:
        pytest.skip("neither Valkey nor Redis is installed")
    processes, port = Processes(tmp_path / "log"), free_port()
    script = str(ROOT / "deploy" / "broker.sh")
    env = {
        **os.environ,
        "BROKER_PASSWORD": "secret",
        "BROKER_DIR": str(tmp_path / "broker"),
        "BROKER_BIND": "127.0.0.1",
        "BROKER_PORT": str(port),
    }
    try:
        processes.start("broker", ["sh", script], env)
        wait_for_port(processes, "broker", port, 10)
        subprocess.run(["sh", script, "ping"], env=env, check=True)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        assert redis.Redis(port=port, password="secret").config_get("save") == {"save": ""}
        assert "secret" not in (tmp_path / "broker" / "broker.conf").read_text()
    finally:
        processes.stop_all()
    assert subprocess.run(["sh", script, "ping"], env=env, check=False).returncode != 0


def _sh(folder: Path, script: str, *words: str) -> None:
    subprocess.run(["sh", script, *words], cwd=folder, check=True, capture_output=True)
