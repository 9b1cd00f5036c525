"""A git repository on the guest, to which this machine pushes."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.guest import Guest

# The path has a character that systemd, a URL and a shell each treat differently.
_PATH = "/srv/boards' site.git"
URL = "file:///srv/boards%27%20site.git"
_KEEPER = "keeper@boards.example"
_IDENTITY = ["-c", "user.name=Board Keeper", "-c", f"user.email={_KEEPER}"]


class Keys:
    """Keys of this machine that the guest accepts, as git arguments that sign a commit."""

    def __init__(self, guest: Guest, directory: Path) -> None:
        self._gnupg = directory / "gpg"
        self.ssh = self._make_ssh(guest, directory / "ssh")
        self.gpg = self._make_gpg(guest, self._gnupg)

    def forget(self) -> None:
        """Stop the agent that gpg has started for the keys."""
        subprocess.run(["gpgconf", "--homedir", self._gnupg, "--kill", "all"], check=True)

    def _make_ssh(self, guest: Guest, key: Path) -> list[str]:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        public = key.with_suffix(".pub").read_text()
        guest.run("cat > /etc/pull-signers", input=f"{_KEEPER} {public}")
        return ["-c", "gpg.format=ssh", "-c", f"user.signingKey={key}"]

    def _make_gpg(self, guest: Guest, home: Path) -> list[str]:
        home.mkdir(mode=0o700)
        program = home / "gpg-here"
        program.write_text(f'#!/bin/sh\nexec gpg --homedir {shlex.quote(str(home))} "$@"\n')
        program.chmod(0o755)
        generate = ["--batch", "--passphrase", "", "--quick-generate-key", _KEEPER, "ed25519"]
        subprocess.run([program, *generate], check=True, capture_output=True)
        guest.run(["mkdir", "--mode=700", "/etc/pull-keys"])
        guest.put(home / "pubring.kbx", "/etc/pull-keys/pubring.kbx")
        chosen = ["-c", f"user.signingKey={_KEEPER}", "-c", f"gpg.program={program}"]
        return ["-c", "gpg.format=openpgp", *chosen]


class Repository:
    """A bare repository on ``guest``, and its working copy in ``directory`` on this machine."""

    def __init__(self, guest: Guest, directory: Path) -> None:
        self._guest = guest
        self._directory = directory
        guest.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", _PATH])
        directory.mkdir()
        self._git("init", "--quiet", "--initial-branch=main")

    def commit(self, files: Mapping[str, Any], signing: Sequence[str] = ()) -> None:
        """Write files, as YAML unless the content is text, and push them as one commit.

        ``signing`` are the arguments with which git signs the commit.
        """
        for name, content in files.items():
            path = self._directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
            path.chmod(0o755 if isinstance(content, str) and content.startswith("#!") else 0o644)
        self._git("add", "--all")
        sign = ["--gpg-sign"] if signing else ["--no-gpg-sign"]
        self._git(*_IDENTITY, *signing, "commit", "--quiet", *sign, "--message=Another list")
        *login, destination = self._guest.ssh_argv()
        self._git(
            "push",
            "--quiet",
            f"{destination}:{_PATH}",
            "main",
            GIT_SSH_COMMAND=shlex.join(login),
        )

    def _git(self, *words: str, **variables: str) -> None:
        subprocess.run(
            ["git", *words], cwd=self._directory, env={**os.environ, **variables}, check=True
        )
