"""docker-compose.yml, Dockerfile and .env.example agree and are complete."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import compose

ROOT = compose.ROOT
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVER_PARTS = ("web", "coordinator", "beat", "aggregate", "migrate")
ONE_SHOT = ("migrate",)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return compose.services(compose.example_env())


def test_every_part_of_the_design_is_there(services: dict[str, Any]) -> None:
    brokers = {"redis", "redis-devices"}
    assert set(services) == {*SERVER_PARTS, *brokers, "postgres", "device", "proxy"}


def test_every_service_is_watched(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name not in ONE_SHOT:
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_images_are_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d+\.\d+", tag), f"{name} runs {service['image']}"
        assert "build" in service or tag != "latest"
    for image in re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE):
        assert not image.endswith(":latest")


def test_what_is_built_has_a_target(services: dict[str, Any]) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    built = {service["build"]["target"] for service in services.values() if "build" in service}
    assert built == {"server", "device"}
    assert built <= targets


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
    made_later = ("./deploy/certs/", "./device-data")
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


def test_the_brokers_are_apart(services: dict[str, Any]) -> None:
    web = services["web"]["environment"]
    assert "@redis:" in web["REDIS_URL"]
    assert web["DEVICE_REDIS_URL"].startswith("rediss://edgewise:")
    assert "@redis-devices:" in web["DEVICE_REDIS_URL"]
    assert "ports" not in services["redis"]
    assert "ports" not in services["postgres"]


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
    last = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1]
    assert json.loads(last) == compose.command_line(services["web"])


def test_images_run_as_nobody_special_and_are_watched() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    for target in ("device", "server"):
        stage = next(s for s in stages if s.split("\n")[0].endswith(f" AS {target}"))
        assert "\nUSER edgewise\n" in stage
        assert "\nHEALTHCHECK " in stage


def test_the_image_names_no_version_of_a_package() -> None:
    assert "==" not in DOCKERFILE
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    for word in shlex.split(" ".join(copied)):
        assert (ROOT / word).exists(), f"the Dockerfile copies {word}"


def test_the_scripts_make_an_environment_and_certificates(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    for name in ("make-env.sh", "make-certs.sh"):
        (tmp_path / "deploy" / name).write_bytes((ROOT / "deploy" / name).read_bytes())
    (tmp_path / ".env.example").write_bytes((ROOT / ".env.example").read_bytes())
    _sh(tmp_path, "deploy/make-env.sh", "https://edgewise.test:8443", "broker.test")
    env = dict(
        line.split("=", 1)
        for line in (tmp_path / ".env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    secrets = [value for name, value in env.items() if name.endswith(("_KEY", "_PASSWORD"))]
    assert "change-me" not in env.values()
    assert len(set(secrets)) == 4 and all(len(value) >= 50 for value in secrets)
    assert (env["EDGEWISE_URL"], env["DEVICE_BROKER_HOST"]) == (
        "https://edgewise.test:8443",
        "broker.test",
    )
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    with pytest.raises(subprocess.CalledProcessError):  # a second run would lose the secrets
        _sh(tmp_path, "deploy/make-env.sh", "https://edgewise.test")
    compose.services(env)

    certs = tmp_path / "deploy" / "certs"
    _sh(tmp_path, "deploy/make-certs.sh", "broker.test", "192.0.2.7")
    authority = (certs / "ca.crt").read_bytes()
    _sh(tmp_path, "deploy/make-certs.sh", "broker.test", "other.test")
    assert (certs / "ca.crt").read_bytes() == authority
    assert (certs / "broker.key").stat().st_mode & 0o077 == 0
    for host in ("broker.test", "other.test", "redis-devices"):
        check = ["-CAfile", str(certs / "ca.crt"), "-verify_hostname", host]
        subprocess.run(["openssl", "verify", *check, str(certs / "broker.crt")], check=True)


def _sh(folder: Path, script: str, *words: str) -> None:
    subprocess.run(["sh", script, *words], cwd=folder, check=True, capture_output=True)
