"""A git server sends unsigned commits: nothing in them is executed, now or at the next pull."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.pull.pulling import HOST, ensure_pulling, pull

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest
    from tests.pull.repository import Keys, Repository

CHECKOUT = "/var/lib/armfleet-vfio-pull/repository"
# The service may write there.
MARKS = "/run/planted"
PLUGINS = (
    "action",
    "become",
    "cache",
    "callback",
    "connection",
    "filter",
    "inventory",
    "lookup",
    "module_utils",
    "shell",
    "strategy",
    "test",
    "vars",
)
SHELL = f'#!/bin/sh\nmkdir -p {MARKS}; id -un > {MARKS}/%s\nexec /usr/bin/python3 "$@"\n'
PYTHON = (
    "#!/usr/bin/python3\n"
    f"import os\nos.makedirs({MARKS!r}, exist_ok=True)\nopen({MARKS!r} + '/%s', 'w').close()\n"
)
CONFIGURATION = "[defaults]\ncallbacks_enabled = planted\nlibrary = library\n" + "".join(
    f"{kind}{'' if kind == 'module_utils' else '_plugins'} = plugins/{kind}\n" for kind in PLUGINS
)


def planted() -> dict[str, Any]:
    """Return files that could make Ansible or git execute code of the repository.

    ansible.cfg is not among them, because it decides which of the others have an effect.
    """
    interpreter = {"ansible_python_interpreter": f"{CHECKOUT}/interpreter"}
    return {
        "interpreter": SHELL % "interpreter",
        **dict.fromkeys(
            (
                "group_vars/all.yml",
                f"host_vars/{HOST}.yml",
                "host_vars/localhost.yml",
                "inventory/group_vars/all.yml",
            ),
            interpreter,
        ),
        **{
            f"{name}/{module}.py": PYTHON % f"{name}-{module}"
            for name in ("library", "collections/ansible_collections/acme/x/plugins/modules")
            for module in ("git", "command", "setup")
        },
        **{f"plugins/{kind}/planted.py": PYTHON % kind for kind in PLUGINS},
        **{f"{kind}_plugins/planted.py": PYTHON % f"{kind}-beside" for kind in PLUGINS},
        **{
            f"{directory}/{hook}": SHELL % f"hook-{hook}"
            for directory in (".githooks", "hooks")
            for hook in ("post-checkout", "post-merge", "post-index-change")
        },
        # The host has a filter of this name, as hosts with git-lfs do.
        ".gitattributes": "* filter=planted\n",
        ".gitmodules": (
            '[submodule "sub"]\n\tpath = sub\n\turl = ext::/bin/touch /run/planted\n'
            f"\tupdate = !mkdir -p {MARKS}\n"
        ),
        "site.yml": [
            {
                "name": "Unsigned",
                "hosts": "all",
                "gather_facts": False,
                "tasks": [{"ansible.builtin.command": {"argv": ["mkdir", "-p", MARKS]}}],
            }
        ],
    }


@pytest.fixture(scope="module", autouse=True)
def pulling(guest: Guest, inventory: Path, repository: Repository, keys: Keys) -> None:
    """Let the host pull a signed commit, and configure a git filter on it."""
    guest.run(["git", "config", "--system", "filter.planted.smudge", f"tee {MARKS}-filter"])
    ensure_pulling(guest, inventory, repository, keys)


def marks(guest: Guest) -> list[str]:
    return guest.run(f"find {MARKS}* 2>/dev/null", check=False).stdout.splitlines()


def checkout(guest: Guest) -> str:
    every = f"find {CHECKOUT} -name .git -prune -o -type f -exec sha256sum {{}} +"
    return guest.run(f"{every} | sort --key 2").stdout


# ansible.cfg comes second, because it stays in the repository from then on.
# A file ansible.cfg makes Ansible load more of the others.
@pytest.mark.parametrize(
    "configuration", [pytest.param("without", marks=pytest.mark.nightly), "with"]
)
def test_two_pulls_of_unsigned_commits_run_and_leave_nothing(
    guest: Guest, repository: Repository, configuration: str
) -> None:
    before = checkout(guest)
    files = planted()
    if configuration == "with":
        files["ansible.cfg"] = CONFIGURATION
    repository.commit(files)
    for _pull in range(2):
        done = pull(guest)
        assert done.result == "exit-code", done.log
        assert marks(guest) == [], done.log
    assert checkout(guest) == before
