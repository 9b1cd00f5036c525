# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes the commit that this host runs: fetches it, verifies it, and only then checks it out.

The role armfleet.vfio.pull installs this program. It needs Python 3.8, git 2.30 and no package.
What is fetched stays in a repository of its own, where nothing reads its files. Names of branches
and tags are resolved here and not by git, and all that follows is about the object found.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_FETCHED, _APPLIED = "refs/fetched", "refs/applied"
_HASH = re.compile(r"[0-9a-fA-F]{40}(?:[0-9a-fA-F]{24})?")
# Shorter ones git itself does not take for the beginning of a hash.
_ABBREVIATED_HASH = re.compile(r"[0-9a-fA-F]{4,63}")
# No repository can set these; a host's own configuration may have them for its users' work.
_GIT = (
    "git",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "gc.autoDetach=false",
    "-c",
    "maintenance.autoDetach=false",
)

# What git takes for the beginning of a signature, and its name of the format.
_BEGINNINGS = (
    ("-----BEGIN PGP SIGNATURE-----", "openpgp"),
    ("-----BEGIN PGP MESSAGE-----", "openpgp"),
    ("-----BEGIN SIGNED MESSAGE-----", "x509"),
    ("-----BEGIN SSH SIGNATURE-----", "ssh"),
)
_SIGNATURE_HEADER = re.compile(r"gpgsig(-sha256)? ")
# Each format, and why it is refused unless there are keys for it.
_FORMATS = {
    "openpgp": "OpenPGP requires `pull_gnupg_home`. Set it, or sign with an SSH key.",
    "x509": (
        "gpgsm decides by the host's own certificates whom to trust in X.509. Sign with a key of "
        "`pull_gnupg_home` or `pull_allowed_signers`."
    ),
    "ssh": "SSH requires `pull_allowed_signers`. Set it, or sign with an OpenPGP key.",
}
_REFUSING = "/bin/false"
# GnuPG reads /etc/gnupg/gpg.conf after the first all the same; it has all of these since 2.2.20.
_GPG_OPTIONS = (
    "--no-options",
    "--no-auto-key-retrieve",
    "--no-auto-key-import",
    "--no-auto-key-locate",
    "--disable-dirmngr",
)


class RefusedError(Exception):
    """Why nothing is run; a sentence for the journal, with the remedy."""


class Source(NamedTuple):
    """Where the commit comes from, as the role's variables have it."""

    repository: str
    # Null is the default branch.
    revision: str | None

    def __str__(self) -> str:
        return f"{self.revision or 'The default branch'} of {self.repository}"


class Object(NamedTuple):
    """The object that a revision names."""

    # As 40 or 64 hexadecimal digits; of an annotated tag its own and not that of its commit.
    id: str
    kind: str
    # The tag's name if the revision is a tag, to be compared with the one that was signed.
    tag: str | None


class Keys(NamedTuple):
    """The keys by which a commit may be signed: a directory of GnuPG, a file of allowed signers."""

    gnupg_home: str | None
    allowed_signers: str | None

    @property
    def formats(self) -> set[str]:
        """Git's names of the formats of signatures for which there are keys."""
        by_format = {"openpgp": self.gnupg_home, "ssh": self.allowed_signers}
        return {name for name, keys in by_format.items() if keys}


class Tree(NamedTuple):
    """A work tree: that of the checkout, or of a submodule at any depth."""

    # The directory of its repository, and that of its files.
    git: Path
    files: Path

    def leads_to(self) -> bool:
        """Return whether the files belong to that repository, as git itself would find it."""
        link = self.files / ".git"
        try:
            if not stat.S_ISREG(link.lstat().st_mode):
                return False
            content = link.read_text(errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            return False
        word, _colon, target = content.rstrip("\n").partition(": ")
        return word == "gitdir" and (self.files / target).resolve() == self.git.resolve()


class Submodule(NamedTuple):
    """A submodule that a commit has and describes."""

    name: str
    commit: str
    tree: Tree
    # By the author's word (``update = none``) it is not checked out.
    is_skipped: bool


class Commits:
    """The repository of everything that was fetched, and the checkout of what was verified."""

    def __init__(self, home: Path, source: Source, transports: list[str]) -> None:
        """Make the repository unless it is there.

        :arg home: The directory of both.
        :arg transports: Git's names of the transports by which it may fetch.
        """
        # git writes resolved paths, too.
        home = home.resolve()
        self.checkout = home / "repository"
        self.directory = home / "repository.git"
        self._openpgp = home / "verify-openpgp"
        self._tree = Tree(self.directory, self.checkout)
        self._source = source
        self._environment = {
            **os.environ,
            "GIT_ALLOW_PROTOCOL": ":".join(transports),
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }
        self._remove_locks()
        self._make()

    def find(self) -> Object:
        """Fetch, and return what the revision names.

        A full hash is that object and never a branch or tag of that name. Other names are a full
        ``refs/…``, a branch, a tag, or the beginning of a hash, in this order.

        :raises RefusedError: It names nothing, or no commit.
        """
        revision = self._source.revision
        if revision in (None, "HEAD"):
            return self._object(self._fetch_one("HEAD"), is_branch=True)
        if revision.startswith("refs/"):
            is_tag = revision.startswith("refs/tags/")
            tag = revision[len("refs/tags/") :] if is_tag else None
            return self._object(self._fetch_one(revision), tag=tag, is_branch=not is_tag)
        self._fetch(*(f"+refs/{kind}/*:{_FETCHED}/{kind}/*" for kind in ("heads", "tags")))
        if _HASH.fullmatch(revision):
            return self._pinned(revision.lower())
        branch = self._resolve(f"heads/{revision}")
        if branch:
            return self._object(branch, is_branch=True)
        tag = self._resolve(f"tags/{revision}")
        if tag:
            return self._object(tag, tag=revision)
        if _ABBREVIATED_HASH.fullmatch(revision):
            return self._object(self._output("rev-parse", "--verify", "--quiet", revision))
        return self._object("")

    def verify(self, git_object: Object, keys: Keys) -> None:
        """Verify the signature of a commit or an annotated tag, by its id.

        Its signer chooses the format, and by that the program that decides whom to trust. A format
        for which no keys were given has one that refuses everything.

        :raises RefusedError: It has none that is valid, or the tag was signed by another name.
        """
        signature = self._signature_format(git_object)
        if signature in _FORMATS and signature not in keys.formats:
            raise RefusedError(
                f"{self._source} is {git_object.kind} {git_object.id}, which has a signature in a "
                f"format that is not accepted: {_FORMATS[signature]}"
            )
        programs = dict.fromkeys(_FORMATS, _REFUSING)
        options = []
        if keys.gnupg_home:
            programs["openpgp"] = str(self._openpgp_program(keys.gnupg_home))
        if keys.allowed_signers:
            programs["ssh"] = self._configured_program("ssh") or "ssh-keygen"
            options = ["-c", f"gpg.ssh.allowedSignersFile={keys.allowed_signers}"]
        for name, program in programs.items():
            options += ["-c", f"gpg.{name}.program={program}"]
        done = self._run(*options, f"verify-{git_object.kind}", git_object.id)
        print(_printable(done.stderr), file=sys.stderr)
        if done.returncode:
            raise RefusedError(
                f"{self._source} is {git_object.kind} {git_object.id}, which has no valid "
                "signature by a key of `pull_gnupg_home` or `pull_allowed_signers`. Sign it, and "
                "find out who pushed it."
            )
        if git_object.kind == "tag" and git_object.tag is not None:
            signed = self._names_in_tag(git_object.id)
            if signed != [git_object.tag]:
                raise RefusedError(
                    f"{self._source} is a tag that was signed as {', '.join(signed)}. "
                    "Sign a tag with the name in `pull_revision`."
                )

    def _signature_format(self, git_object: Object) -> str | None:
        """Return git's name of the format of a signature; null without one that it knows."""
        text = self._output("cat-file", git_object.kind, git_object.id)
        if git_object.kind == "commit":
            header = text.partition("\n\n")[0].split("\n")
            lines = [line.partition(" ")[2] for line in header if _SIGNATURE_HEADER.match(line)]
        else:
            lines = text.split("\n")
        formats = [name for line in lines for begin, name in _BEGINNINGS if line.startswith(begin)]
        return formats[-1] if formats else None

    def _openpgp_program(self, gnupg_home: str) -> Path:
        """Write and return what git calls for gpg, with the keys of that directory alone.

        git passes no options on. By those of a host's own gpg.conf a key would be fetched from
        elsewhere, or taken from the signature that it is to verify, and be accepted by that.
        """
        gpg = self._configured_program("openpgp") or "gpg"
        words = [gpg, "--homedir", gnupg_home, *_GPG_OPTIONS]
        _remove(self._openpgp)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(self._openpgp, flags, 0o700), "w") as stream:
            stream.write(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        return self._openpgp

    def _configured_program(self, name: str) -> str:
        """Return the program that the host's own configuration of git has for a format."""
        key = r"^gpg\.(openpgp\.)?program$" if name == "openpgp" else rf"^gpg\.{name}\.program$"
        words = ("--type=path", "-z", "--get-regexp", key)
        values = self._listed("config", *words, is_empty_failure=True)
        return values[-1].partition("\n")[2] if values else ""

    def commit_of(self, git_object: Object) -> str:
        """Return the id of the commit that an object leads to."""
        commit = self._output("rev-parse", "--verify", "--quiet", f"{git_object.id}^{{commit}}")
        if not commit:
            raise RefusedError(
                f"{self._source} is {git_object.kind} {git_object.id}, which is not a commit."
            )
        return commit

    def refuse_replay(self, commit: str) -> None:
        """Refuse what does not come after the commit that was last taken from the same source.

        :raises RefusedError: The commit is no descendant of that one.
        """
        last = self._output("rev-parse", "--verify", "--quiet", self._applied)
        if not last:
            return
        done = self._run("merge-base", "--is-ancestor", last, commit)
        if done.returncode == 1:
            raise RefusedError(
                f"{self._source} is commit {commit}, which is not a descendant of {last}, the "
                "last commit taken. If its history was rewritten on purpose, set "
                "`pull_fast_forward_only: false` until this host has pulled."
            )
        self._expect(done, "merge-base")

    def remember(self, commit: str) -> None:
        """Keep a verified commit, so that none before it is taken from the same source again."""
        self._git("update-ref", self._applied, commit)

    def check_out(self, commit: str) -> None:
        """Make the files of the checkout those of a commit, and fetch its submodules.

        Files that no commit has had stay, unless the checkout was not made by this program, they
        are where the commit has something else, or in a submodule that it does not have.
        """
        if not (self.directory / "index").exists():
            _remove(self.checkout)
        self.checkout.mkdir(mode=0o700, exist_ok=True)
        (self.checkout / ".git").write_text("gitdir: ../repository.git\n")
        self._git("update-ref", "--no-deref", "HEAD", commit)
        self._check_out(self._tree, commit)

    def _check_out(self, tree: Tree, commit: str) -> None:
        submodules = self._submodules(tree, commit)
        self._remove_former(tree, submodules)
        for submodule in submodules:
            self._clear(tree, submodule)
        self._git("read-tree", "--reset", "-u", commit, tree=tree)
        if not submodules:
            return
        self._git("submodule", "--quiet", "sync", tree=tree)
        for submodule in submodules:
            # A merge or a rebase, which an author may ask for, is not the commit that was signed.
            how = "none" if submodule.is_skipped else "checkout"
            self._git("config", f"submodule.{submodule.name}.update", how, tree=tree)
        self._git("submodule", "--quiet", "update", "--init", "--force", tree=tree)
        for submodule in submodules:
            if not submodule.is_skipped:
                self._check_out(submodule.tree, submodule.commit)

    def _submodules(self, tree: Tree, commit: str) -> list[Submodule]:
        """Return the submodules of a commit that its ``.gitmodules`` describes."""
        listed = self._listed("ls-tree", "-r", "-z", "--full-tree", commit, tree=tree)
        entries = {path: entry for entry, _tab, path in (line.partition("\t") for line in listed)}
        links = {
            path: entry.split(" ")[2]
            for path, entry in entries.items()
            if entry.startswith("160000 ")
        }
        if not links or ".gitmodules" not in entries:
            return []
        words = ("-z", "--blob", f"{commit}:.gitmodules", "--get-regexp", r"^submodule\..*\.")
        names, skipped = {}, set()
        for setting in self._listed("config", *words, tree=tree, is_empty_failure=True):
            key, _end, value = setting.partition("\n")
            name, _dot, option = key[len("submodule.") :].rpartition(".")
            # git takes no such name either: it is a path below the directory of all of them.
            if ".." in name.split("/") or name.startswith("/"):
                continue
            if option == "path":
                names[value.rstrip("/")] = name
            elif option == "update" and value == "none":
                skipped.add(name)
        return [
            Submodule(
                names[path],
                oid,
                Tree(tree.git / "modules" / names[path], tree.files / path),
                names[path] in skipped,
            )
            for path, oid in links.items()
            if path in names
        ]

    def _remove_former(self, tree: Tree, submodules: list[Submodule]) -> None:
        """Remove checkouts of submodules that are not there any more, or elsewhere.

        git leaves them. What an earlier commit had there would be taken for this one's.
        """
        current = {submodule.name: submodule.tree for submodule in submodules}
        words = ("-z", "--name-only", "--get-regexp", r"^submodule\..*\.url$")
        for key in self._listed("config", *words, tree=tree, is_empty_failure=True):
            name = key[len("submodule.") : -len(".url")]
            module = tree.git / "modules" / name
            where = self._output("config", "core.worktree", tree=Tree(module, tree.files))
            if not where:
                continue
            former = Tree(module, Path(os.path.normpath(module.resolve() / where)))
            if (
                former != current.get(name)
                and tree.files in former.files.parents
                and _obstacle_above(tree.files, former.files) is None
                and former.leads_to()
            ):
                _remove(former.files)

    def _clear(self, tree: Tree, submodule: Submodule) -> None:
        """Remove what git would neither replace by a submodule nor take for it."""
        if submodule.is_skipped:
            return
        module, files = submodule.tree
        if module.exists() and not self._is_sound(tree, submodule):
            _remove(module)
        obstacle = _obstacle_above(tree.files, files)
        if obstacle is not None:
            # A link is removed and not followed.
            obstacle.unlink()
        elif not module.exists() or not submodule.tree.leads_to():
            _remove(files)

    def _is_sound(self, tree: Tree, submodule: Submodule) -> bool:
        """Return whether a submodule's repository was cloned to its end, with the same hashes."""
        module = submodule.tree
        return bool(
            self._output("rev-parse", "--verify", "--quiet", "HEAD^{commit}", tree=module)
        ) and self._format_of(module) == self._format_of(tree)

    @property
    def _applied(self) -> str:
        """The ref of the last commit taken by the same settings; others say nothing of it."""
        settings = "\0".join((self._source.repository, self._source.revision or ""))
        return f"{_APPLIED}/{hashlib.sha256(settings.encode()).hexdigest()}"

    def _remove_locks(self) -> None:
        """Remove what a git that was killed has left; the unit runs once at a time."""
        for lock in self.directory.rglob("*.lock"):
            if lock.is_file():
                lock.unlink()

    def _make(self) -> None:
        if not (self.directory / "HEAD").exists():
            hashes = f"--object-format={self._served_format() or 'sha1'}"
            fresh = self.directory.with_name(self.directory.name + ".new")
            _remove(fresh)
            self._git("init", "--quiet", "--bare", "--template=", hashes, tree=Tree(fresh, fresh))
            # Whole or not at all: half of one would be no repository for good.
            _remove(self.directory)
            fresh.rename(self.directory)
        # So that git can be used in the checkout, too.
        self._git("config", "core.bare", "false")
        # Submodules may have URLs that are relative to it.
        self._git("config", "remote.origin.url", self._source.repository)

    def _served_format(self) -> str:
        """Return how the server hashes now; an empty text if it has no ref."""
        none = self.directory.with_name("none")
        listed = self._run("ls-remote", "--", self._source.repository, tree=Tree(none, none))
        self._expect(listed, "ls-remote")
        match = re.match(rb"([0-9a-f]+)\t", listed.stdout)
        if not match:
            return ""
        return "sha256" if len(match[1]) == 64 else "sha1"

    def _format_of(self, tree: Tree) -> str:
        return self._output("rev-parse", "--show-object-format", tree=tree)

    def _fetch(self, *refs: str) -> None:
        options = ("--quiet", "--force", "--prune", "--no-tags", "--no-recurse-submodules")
        words = ("fetch", *options, "--no-write-fetch-head", "origin", *refs)
        done = self._run(*words)
        if done.returncode and self._is_remade():
            done = self._run(*words)
        self._expect(done, "fetch")

    def _is_remade(self) -> bool:
        """Make the repository again if the server hashes in another way than it did before.

        A repository has one kind of hash for good. A server that has answered once in another one
        must not end all later pulls by that.

        :raises RefusedError: The commits last taken, which nothing older may follow, would be lost.
        """
        here = self._format_of(self._tree)
        try:
            served = self._served_format()
        except RefusedError:
            # What the fetch has failed by says more.
            return False
        if served in ("", here):
            return False
        if self._output("for-each-ref", "--count=1", _APPLIED):
            raise RefusedError(
                f"{self._source} has {served} hashes, but the commits fetched before have {here}. "
                f"If the repository was converted on purpose, remove {self.directory}. It records "
                "the commits last taken, so that the next pull takes any commit with a valid "
                "signature, an older one as well (`pull_fast_forward_only`)."
            )
        _remove(self.directory)
        self._make()
        return True

    def _fetch_one(self, ref: str) -> str:
        self._fetch(f"+{ref}:{_FETCHED}/one")
        return self._resolve("one")

    def _pinned(self, revision: str) -> Object:
        if self._run("cat-file", "-e", revision).returncode:
            # It is in no branch and no tag; many servers give it all the same.
            self._fetch(revision)
        git_object = self._object(revision)
        resolved = self._output("rev-parse", "--verify", "--quiet", revision)
        if resolved != revision:
            raise RefusedError(f"{self._source} is object {resolved}.")
        return git_object

    def _resolve(self, name: str) -> str:
        """Return the id of a ref that was fetched, or an empty text."""
        return self._output("show-ref", "--verify", "--hash", f"{_FETCHED}/{name}")

    def _object(self, oid: str, *, tag: str | None = None, is_branch: bool = False) -> Object:
        if not oid:
            raise RefusedError(
                f"{self._source} does not exist. "
                "Set `pull_revision` to a branch, a tag or a commit of that repository."
            )
        kind = self._output("cat-file", "-t", oid)
        if kind != "commit" and (kind != "tag" or is_branch):
            raise RefusedError(
                f"{self._source} is {kind or 'object'} {oid}, which is not a commit."
            )
        return Object(oid, kind, tag)

    def _names_in_tag(self, oid: str) -> list[str]:
        header = self._output("cat-file", "tag", oid).partition("\n\n")[0]
        return [line[4:] for line in header.split("\n") if line.startswith("tag ")]

    def _run(self, *words: str, tree: Tree | None = None) -> subprocess.CompletedProcess[bytes]:
        git, files = tree or self._tree
        # For submodules git wants to be inside of the working tree.
        directory = files if words[0] == "submodule" else "/"
        environment = {**self._environment, "GIT_DIR": str(git), "GIT_WORK_TREE": str(files)}
        if words[0] == "init":
            del environment["GIT_WORK_TREE"]
        return subprocess.run(
            [*_GIT, *words],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def _output(self, *words: str, tree: Tree | None = None) -> str:
        """Return what git prints, without the end of the last line; empty if it fails."""
        done = self._run(*words, tree=tree)
        return "" if done.returncode else done.stdout.decode(errors="replace").rstrip("\n")

    def _listed(
        self, *words: str, tree: Tree | None = None, is_empty_failure: bool = False
    ) -> list[str]:
        """Return what git prints with ``-z``; code 1 can be its way to find nothing."""
        done = self._run(*words, tree=tree)
        if not (is_empty_failure and done.returncode == 1):
            self._expect(done, words[0])
        return os.fsdecode(done.stdout).split("\0")[:-1]

    def _git(self, *words: str, tree: Tree | None = None) -> None:
        self._expect(self._run(*words, tree=tree), words[0])

    def _expect(self, done: subprocess.CompletedProcess[bytes], verb: str) -> None:
        if done.returncode:
            raise RefusedError(
                f"{self._source} was not taken. git {verb} failed: {_printable(done.stderr)}"
            )


def _printable(output: bytes) -> str:
    """Return the end of what git and the server say, without characters that steer a terminal."""
    lines = output.decode(errors="replace").strip().split("\n")
    kept = ["".join(c if c.isprintable() else "?" for c in line) for line in lines[-20:]]
    return "\n".join(line[:500] for line in kept)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def _obstacle_above(top: Path, path: Path) -> Path | None:
    """Return what is on the way from one directory down to a place in it and is no directory."""
    for parent in reversed([parent for parent in path.parents if top in parent.parents]):
        try:
            if not stat.S_ISDIR(parent.lstat().st_mode):
                return parent
        except FileNotFoundError:
            return None
    return None


def check_trust(option: str, path: Path, home: Path) -> Path:
    """Refuse a file of keys that anybody else than root, or a commit, may have written or replaced.

    :arg option: The role's variable that names it.
    :arg home: The directory of the checkout and of the collections.
    :returns: The path without links, which nobody else can lead elsewhere after this.
    :raises RefusedError: The first reason.
    """
    real = path.resolve()
    for fetched in ("repository", "repository.git", "collections"):
        if (home / fetched).resolve() in (real, *real.parents):
            raise RefusedError(
                f"`{option}` is {path}, which is {real}, a directory of the checkout. "
                "Move the keys to another directory, because a commit could replace them."
            )
    if not real.exists():
        raise RefusedError(f"`{option}` is {path}, which does not exist. Put the keys there.")
    within = [
        Path(top, name) for top, directories, files in os.walk(real) for name in directories + files
    ]
    for part in (real, *real.parents, *within):
        status = part.lstat()
        # Agents of GnuPG have them there.
        if stat.S_ISSOCK(status.st_mode):
            continue
        if stat.S_ISLNK(status.st_mode):
            raise RefusedError(
                f"`{option}` is {path}, but {part} is a symbolic link. Replace it with its target."
            )
        is_shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        by_group = status.st_mode & stat.S_IWGRP and status.st_gid != 0
        by_others = status.st_mode & stat.S_IWOTH
        if status.st_uid not in (0, os.geteuid()) or ((by_group or by_others) and not is_shared):
            raise RefusedError(
                f"`{option}` is {path}, but a user other than root may write to {part}. "
                "Make root its owner, and remove the write permission."
            )
    return real


def _checked_keys(home: Path, gnupg_home: str | None, allowed_signers: str | None) -> Keys:
    """Return both paths without links, as they were checked.

    Without either it is the directory of GnuPG below the directory of the checkout.
    """
    if not gnupg_home and not allowed_signers:
        gnupg_home = str(home / ".gnupg")
    trusted = [
        str(check_trust(option, Path(path), home)) if path else None
        for option, path in (
            ("pull_gnupg_home", gnupg_home),
            ("pull_allowed_signers", allowed_signers),
        )
    ]
    return Keys(*trusted)


def _transports(repository: str, is_cleartext_allowed: bool) -> list[str]:
    """Return the transports of git that a commit and its submodules may come by."""
    is_local = repository.startswith(("/", "file:"))
    return [
        "https",
        "ssh",
        *(["file"] if is_local else []),
        *(["http", "git"] if is_cleartext_allowed else []),
    ]


def _install_collections(checkout: Path, requirements: str, galaxy: str, to: str) -> None:
    wanted = checkout / requirements
    if not wanted.is_file():
        return
    words = [galaxy, "collection", "install", "--requirements-file", str(wanted)]
    done = subprocess.run([*words, "--collections-path", to], cwd=checkout, check=False)
    if done.returncode:
        raise RefusedError(f"The collections of {requirements} were not installed.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--repository", required=True)
    parser.add_argument("--revision")
    parser.add_argument("--allow-cleartext", action="store_true")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--allow-rewind", action="store_true")
    parser.add_argument("--gnupg-home")
    parser.add_argument("--allowed-signers")
    parser.add_argument("--requirements", required=True)
    parser.add_argument("--galaxy", required=True)
    parser.add_argument("--collections", required=True)
    return parser.parse_args()


def _take(asked: argparse.Namespace) -> None:
    transports = _transports(asked.repository, asked.allow_cleartext)
    keys = None
    if asked.verify:
        keys = _checked_keys(asked.home, asked.gnupg_home, asked.allowed_signers)
    source = Source(asked.repository, asked.revision)
    commits = Commits(asked.home, source, transports)
    git_object = commits.find()
    commit = commits.commit_of(git_object)
    if keys is not None:
        commits.verify(git_object, keys)
        if not asked.allow_rewind:
            commits.refuse_replay(commit)
        commits.remember(commit)
    commits.check_out(commit)
    print(f"{source} is commit {commit}.", flush=True)
    _install_collections(commits.checkout, asked.requirements, asked.galaxy, asked.collections)


def main() -> None:
    """Do it, or end with a sentence and exit code 1."""
    # What a checkout has must not be found there by any program.
    os.chdir("/")
    try:
        _take(_arguments())
    # Before Python 3.13 a loop of links is a RuntimeError.
    except (RefusedError, OSError, RuntimeError) as error:
        sys.exit(f"pull: {error}")


if __name__ == "__main__":
    main()
