"""The templates of docs/deploy are checked as far as that is possible without Kubernetes, Docker or other machines."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fieldshift.arguments import normalise, option_kinds
from fieldshift.cli import commands
from fieldshift.command_parser import command_parser

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "deploy"
TEMPLATES = sorted(FOLDER.glob("*.yaml"))
KUBERNETES = ["ray-cluster.yaml", "ray-job.yaml"]
PLACEHOLDER = re.compile(r"<([A-Z][A-Z_0-9]*)>")
IMAGE = re.compile(r"[a-z0-9][a-z0-9./_-]*:[A-Za-z0-9_][A-Za-z0-9_.-]*")
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def filled(path: Path) -> Any:
    return yaml.safe_load(PLACEHOLDER.sub(lambda found: f"some-{found[1].lower().replace('_', '-')}", path.read_text()))


def found_under(document: Any, key: str) -> list[Any]:
    """All values of a key, at any depth."""
    if isinstance(document, list):
        return [value for each in document for value in found_under(each, key)]
    if not isinstance(document, dict):
        return []
    here = [document[key]] if key in document else []
    return here + [value for each in document.values() for value in found_under(each, key)]


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def shown_commands() -> list[list[str]]:
    """The fieldshift commands in the templates' comments and entry points."""
    lines = [
        line.lstrip("# ")
        for path in TEMPLATES
        for line in path.read_text().splitlines()
        if line.startswith("#   fieldshift ")
    ]
    lines += [text for path in TEMPLATES for text in found_under(filled(path), "entrypoint")]
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_an_unfilled_template_fails_loudly(path: Path) -> None:
    """Placeholders can be neither an image nor a name to those who read them, and shell variables are required ones."""
    text = path.read_text()
    document = yaml.safe_load(text)
    unfilled = [value for key in ("image", "claimName") for value in found_under(document, key) if "<" in value]
    assert not any(IMAGE.fullmatch(value) or NAME.fullmatch(value) for value in unfilled)
    own = [value for value in found_under(document, "image") if "fieldshift" in value.lower()]
    assert own
    assert all("<" in value or ":?" in value for value in own)
    assert all(":?" in inner or ":-" in inner for inner in re.findall(r"\$\{([^}]*)\}", text))
    assert "PASSWORD: '" not in text
    assert "password:" not in text


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_templates_are_consistent(name: str) -> None:
    document = filled(FOLDER / name)
    assert document["apiVersion"] == "ray.io/v1"
    assert document["kind"] == {"ray-cluster.yaml": "RayCluster", "ray-job.yaml": "RayJob"}[name]
    assert set(found_under(document, "rayVersion")) == {pinned("ray")}
    images = found_under(document, "image")
    assert len(set(images)) == 1
    assert IMAGE.fullmatch(images[0])
    pods = [template["spec"] for template in found_under(document, "template")]
    assert len(pods) == 2  # head and workers
    for pod in pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        [container] = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == volumes
        assert mounts["shared"] == "/shared"
        assert container["resources"]["requests"] == container["resources"]["limits"]
    for group in found_under(document, "workerGroupSpecs")[0]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_ray_takes_the_launchers_template(tmp_path: Path) -> None:
    """Ray's own schema, which `ray up` checks a file with."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = filled(FOLDER / "ray-up.yaml")
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="clutter"):
        validate_config(prepare_config(config | {"clutter": 1}))


def test_commands_parse() -> None:
    lines = shown_commands()
    assert {line[0] for line in lines} == {"submit", "study"}
    for line in lines:
        words, _, sent = (
            (line, None, []) if "--" not in line else (line[: (at := line.index("--"))], None, line[at + 1 :])
        )
        for each in [words, sent] if sent else [words]:
            function = getattr(importlib.import_module(commands()[each[0]]), each[0])
            parsed, _loose = normalise(each[1:], option_kinds(function), getattr(function, "positional", None))
            command_parser(each[0], function).parse_args(parsed)


def test_the_image_holds_what_it_installs() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sources = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"], "constraints.txt"}
    packages = {Path(package).parts[0] for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert needed | packages <= set(sources)
    [extras] = re.findall(r'"\.\[(.*)\]"', text)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])


def test_the_tracking_server_keeps_its_password_out_of_addresses() -> None:
    document = filled(FOLDER / "mlflow-postgresql.yaml")
    command = document["services"]["tracking"]["command"]
    [store] = [word.partition("=")[2] for word in command if word.startswith("--backend-store-uri=")]
    from fieldshift.tracking import TrackingConfig

    TrackingConfig(uri=store)  # refuses an address with a password
    assert document["services"]["tracking"]["environment"]["PGPASSWORD"].startswith("${MLFLOW_DB_PASSWORD:?")
