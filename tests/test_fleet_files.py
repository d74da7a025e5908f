"""The files of examples/fleet are what their tools take, and run what this program knows.

``fleet/compose-spec.json`` is the schema of https://github.com/compose-spec/compose-spec (Apache-2.0).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scraper.cli import cli
from tests.redis_servers import running

FOLDER = Path(__file__).parent.parent / "examples" / "fleet"
SCHEMA = Path(__file__).parent / "fleet" / "compose-spec.json"
UNIT = FOLDER / "systemd" / "scrape-worker@.service"


def compose() -> dict[str, Any]:
    """Read the Compose file."""
    yaml = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    return found


def manifests() -> list[dict[str, Any]]:
    """Read the Kubernetes manifests."""
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")))


def commands() -> dict[str, list[str]]:
    """Give the command of every worker, and the one that collects."""
    [line] = re.findall("^ExecStart=.*/scrape (.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    services = compose()["services"]
    [job] = [each for each in manifests() if each["kind"] == "Job"]
    return {
        "systemd": shlex.split(line),
        "compose": services["worker"]["command"],
        "collect": services["collect"]["command"],
        "kubernetes": job["spec"]["template"]["spec"]["containers"][0]["args"],
    }


def test_compose() -> None:
    """The Compose file follows the specification's schema."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    pytest.importorskip("jsonschema").Draft7Validator(schema).validate(compose())


def test_kubernetes() -> None:
    """Every manifest follows the schema of its kind; no field is unknown."""
    validator = pytest.importorskip("kubernetes_validate")
    for manifest in manifests():
        validator.validate(manifest, "1.30", strict=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze in PATH")
def test_systemd(tmp_path: Path) -> None:
    """systemd finds nothing to complain of in the unit."""
    text = UNIT.read_text(encoding="utf-8").replace("/srv/crawl/venv/bin/scrape", sys.executable)
    unit = tmp_path / UNIT.name.replace("@", "@1")
    unit.write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["systemd", "compose", "collect", "kubernetes"])
def test_the_commands_are_known(name: str) -> None:
    """Every command and option of the files is one of this program's."""
    given = commands()[name]
    command = cli.commands[given[0]]
    with command.make_context(given[0], given[1:]) as context:
        assert context.params["frontier"].startswith("redis://")


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server in PATH")
def test_redis_takes_its_file(tmp_path: Path) -> None:
    """A Redis that is started with the file writes down all that it confirms; Kubernetes' ConfigMap says the same."""
    lines = [line for line in (FOLDER / "redis.conf").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    options = [word for line in lines for name, value in [line.split(" ")] for word in (f"--{name}", value.strip('"'))]
    with running(tmp_path, *options) as server:
        for name, value in (("appendfsync", b"always"), ("maxmemory-policy", b"noeviction"), ("appendonly", b"yes")):
            assert value in server.send("CONFIG", "GET", name)
    [config] = [each for each in manifests() if each["kind"] == "ConfigMap"]
    assert set(config["data"]["redis.conf"].splitlines()) < set(lines)
