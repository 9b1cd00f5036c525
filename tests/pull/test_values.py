"""The role refuses values that would be more than data, and names the variable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.playbook import Run, play

VARIABLES = Path(__file__).parents[2] / "roles/pull/vars/main.yml"
REPOSITORY = "https://git.example/boards.git"
HOME = "/var/lib/armfleet-vfio-pull"
REFUSED: dict[str, tuple[str, Any]] = {
    "line": ("pull_repository", f"{REPOSITORY}\nExecStartPost=/bin/sh"),
    "line-at-the-end": ("pull_repository", f"{REPOSITORY}\n"),
    "word": ("pull_repository", f"{REPOSITORY} force=yes"),
    "quote": ("pull_repository", f'{REPOSITORY}" --purge "'),
    "variable": ("pull_repository", "https://git.example/$HOME.git"),
    "option": ("pull_repository", "--upload-pack=/bin/sh"),
    "password": ("pull_repository", "https://keeper:secret@git.example/boards.git"),
    "token": ("pull_repository", "https://token@git.example/boards.git"),
    "token-as-a-query": ("pull_repository", f"{REPOSITORY}?private_token=secret"),
    "token-of-a-helper": ("pull_repository", "https::https://secret@git.example/boards.git"),
    "password-of-ssh": ("pull_repository", "ssh://keeper:secret@git.example/boards.git"),
    "password-without-scheme": ("pull_repository", "keeper:secret@git.example:boards.git"),
    "password-with-a-slash": ("pull_repository", "https://keeper:a/secret@git.example/b.git"),
    "command": ("pull_repository", "ext::/bin/touch"),
    "cleartext": ("pull_repository", "http://git.example/boards.git"),
    "cleartext-of-git": ("pull_repository", "git://git.example/boards.git"),
    "cleartext-of-old": ("pull_repository", "ftp://git.example/boards.git"),
    "none": ("pull_repository", None),
    "revision": ("pull_revision", "main; reboot"),
    "playbook-elsewhere": ("pull_playbook", "../../etc/site.yml"),
    "playbook-at-the-root": ("pull_playbook", "/etc/site.yml"),
    "playbook-option": ("pull_playbook", "--extra-vars=a=b"),
    "inventory": ("pull_inventory", "hosts.yml\nUser=nobody"),
    "inventory-elsewhere": ("pull_inventory", "a/.."),
    "requirements": ("pull_requirements", "a b.yml"),
    "host": ("pull_host", "board:other"),
    "schedule": ("pull_schedule", "hourly\nUnit=reboot.service"),
    "specifier": ("pull_schedule", "%i"),
    "delay": ("pull_randomized_delay", "5min\nOnBootSec=1"),
    "keys": ("pull_gnupg_home", "keys"),
    "signers": ("pull_allowed_signers", "/etc/signers\nUMask=0"),
    "signers-in-the-checkout": ("pull_allowed_signers", f"{HOME}/repository/signers"),
    "signers-beside-it": ("pull_allowed_signers", f"/{HOME}//./collections/signers"),
    "keys-among-the-commits": ("pull_gnupg_home", f"{HOME}/repository.git"),
    "programs": ("pull_bin_dir", "/usr/../tmp"),
    "path": ("pull_writable_paths", ["/usr", "/srv /home"]),
    "timeout": ("pull_timeout", 0),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the role on one host per value; all values are checked before this machine changes."""
    hosts = {
        host: {"pull_repository": REPOSITORY, variable: value}
        for host, (variable, value) in REFUSED.items()
    }
    inventory = tmp_path_factory.mktemp("values") / "hosts.yml"
    settings = {"ansible_connection": "local", "ansible_become": False}
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": settings}}))
    return play(inventory, "armfleet.vfio.pull", "--check", "--forks", "4")


@pytest.mark.parametrize("host", REFUSED)
def test_it_is_refused_by_name(run: Run, host: str) -> None:
    variable, _value = REFUSED[host]
    (failed,) = [task for task in run.tasks if task.host == host and task.status == "failed"]
    reported = [failed.result, *failed.result.get("results", [])]
    (sentence,) = {
        result["msg"] for result in reported if result.get("msg", "").startswith(variable)
    }
    assert f"{variable} of {host} is" in sentence or f"{variable} of {host} has" in sentence
    assert "must be " in sentence or "Use https or ssh" in sentence


def test_a_secret_is_refused_without_being_shown(run: Run) -> None:
    assert "secret" not in run.output
    for shown in (
        "https://***@git.example/b.git",
        "***@git.example:boards.git",
        f"{REPOSITORY}?***",
    ):
        assert shown in run.output


@pytest.mark.parametrize(
    "url",
    [
        "/srv/boards.git",
        "file:///srv/boards%27%20site.git",
        "https://git.example",
        "https://git.example:8443/~keeper/boards.git",
        "https://git.example/a@b,c=d&e+f.git",
        "http://git.example/boards.git",
        "git://git.example/boards.git",
        "ssh://git.example/boards.git",
        "ssh://git@git.example:2222/boards.git",
        "git+ssh://git@git.example/~/boards.git",
        "git@git.example:boards.git",
        "git.example:/srv/boards.git",
        "boards:a/b@c.git",
    ],
)
def test_urls_without_a_secret_have_a_form(url: str) -> None:
    forms = yaml.safe_load(VARIABLES.read_text())
    assert re.match(rf"(?:{'|'.join(forms['pull_urls'])})\Z", url)


def test_nothing_is_run_on_a_host_before_that(run: Run) -> None:
    assert run.remote_executions == 0, run.output
