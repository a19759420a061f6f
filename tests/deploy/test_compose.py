"""What compose.yaml, its images and its Dagster instance promise; no container engine is needed."""

import importlib.metadata
import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from im_resources.study import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
DOCKERFILE = (COMPOSE / "Dockerfile").read_text(encoding="utf-8")
FILES = ("compose.yaml", "compose.gpu.yaml", "compose.ray.yaml")


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((COMPOSE / name).read_text(encoding="utf-8"))
    return content


SERVICES: dict[str, Any] = read("compose.yaml")["services"]


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_of_the_compose_specification(name: str) -> None:
    package = importlib.metadata.distribution("check-jsonschema")
    vendored = "check_jsonschema/builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(Path(str(package.locate_file(vendored))).read_text(encoding="utf-8"))
    jsonschema.validate(read(name), schema)


def test_images_are_of_exact_versions() -> None:
    bases = [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE, re.MULTILINE))
    pulled = [s["image"] for s in SERVICES.values() if "build" not in s]
    for image in [base for base in bases if base not in stages] + pulled:
        assert re.fullmatch(r"[\w/-]+:\d+\.\d+(\.\d+)?(-\w+)*(@sha256:[0-9a-f]{64})?", image), image


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "postgres" or service["user"].startswith("${IM_UID:-10001}:")
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert not [v for v in service.get("volumes", ()) if "docker.sock" in v]


@pytest.mark.parametrize("name", [n for n in SERVICES if n != "backup"])
def test_a_service_comes_back_and_says_how_it_is(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_only_the_proxy_is_reached_from_outside() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert SERVICES["proxy"]["networks"] == ["edge"]
    assert read("compose.yaml")["networks"]["core"] == {"internal": True}


def test_only_runs_have_the_study() -> None:
    holders = {n for n, s in SERVICES.items() if "home:/var/lib/im" in s.get("volumes", ())}
    assert holders == {"code", "backup"}


def test_volumes_and_secrets_are_declared() -> None:
    content = read("compose.yaml")
    used = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", ())}
    assert {name for name in used if not name.startswith("$")} == set(content["volumes"])
    secrets = {
        s if isinstance(s, str) else s["source"]
        for service in SERVICES.values()
        for s in service.get("secrets", ())
    }
    assert secrets == set(content["secrets"])


def test_no_password_is_written_down() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "secrets" not in path.parts and path.name != ".env":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"://\w+:[^@/$\s]+@", text), path
            assert not re.search(r"\$2[aby]\$", text), path
            assert not re.search(r"(?i)password\s*[:=]\s*[\"']?\w{6,}", text), path


def test_postgres_and_its_client_are_of_one_version() -> None:
    server = SERVICES["postgres"]["image"].split(":")[1].split(".")[0]
    assert re.findall(r"postgresql-client-(\d+)", DOCKERFILE) == [server]


def test_the_instance_is_the_local_one_but_for_its_storage() -> None:
    deployed = read("dagster/dagster.yaml")
    local = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    assert deployed.pop("storage").keys() == {"postgres"}
    assert local.pop("storage").keys() == {"sqlite"}
    assert deployed == local


def test_the_image_gets_what_the_makefile_installs_and_no_secrets() -> None:
    kept = (COMPOSE / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert kept[1] == "*"
    taken = [line[1:] for line in kept if line.startswith("!")]
    for path in taken:
        assert (PROJECT_ROOT / path).exists(), path
    assert not [path for path in taken if "secrets" in path or path.startswith("var")]
    for needed in ("Makefile", "pyproject.toml", "requirements.lock", "im_assets", "sql"):
        assert needed in taken


def test_the_entrypoint_turns_secrets_into_variables(tmp_path: Path) -> None:
    (tmp_path / "PGPASSWORD").write_text("a b$c'd\n", encoding="utf-8")
    done = subprocess.run(
        [COMPOSE / "entrypoint", "printenv", "PGPASSWORD"],
        env=os.environ | {"IM_SECRETS": str(tmp_path)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "a b$c'd\n"


@pytest.mark.parametrize(
    ("name", "password", "problem"),
    [
        ("", "long enough for it", "usage"),
        ("an na", "long enough for it", "usage"),
        ("anna", "too short", "has 9 characters"),
    ],
)
def test_the_setup_refuses_a_name_or_a_password_that_does_not_do(
    tmp_path: Path, name: str, password: str, problem: str
) -> None:
    done = subprocess.run(
        [DEPLOY / "setup", name],
        input=password, env=os.environ | {"IM_COMPOSE": str(tmp_path)},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, problem in done.stderr) == (2, True)
    assert not (tmp_path / "secrets" / "users").exists()


def test_the_scripts_are_executable() -> None:
    for path in (DEPLOY / "setup", DEPLOY / "backup", DEPLOY / "restore", COMPOSE / "entrypoint"):
        assert path.stat().st_mode & stat.S_IXUSR, path
