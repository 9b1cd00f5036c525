"""take_commit.py with real git, against a malicious server."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from tests.harness.nightly import at_night

PROGRAM = Path(__file__).parents[2] / "roles/pull/files/take_commit.py"
KEEPER = "keeper@boards.example"
GIT = ["git", "-c", "user.name=Keeper", "-c", f"user.email={KEEPER}", "-c", "gpg.format=ssh"]
ENVIRONMENT = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


class Server:
    """A git server whose owner may change its repository in any way that the file system allows."""

    def __init__(self, path: Path, key: Path, *options: str) -> None:
        self.path = path
        self.key = key
        self.git("init", "--quiet", "--initial-branch=main", *options)

    def git(self, *words: str) -> str:
        self.path.mkdir(exist_ok=True)
        command = [*GIT, "-c", f"user.signingKey={self.key}", "-c", "protocol.file.allow=always"]
        done = subprocess.run(
            [*command, *words], cwd=self.path, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True
        )
        return done.stdout.decode().strip()

    def commit(self, content: str, *, signed: bool = True, **files: str) -> str:
        """Commit ``site.yml`` with a content, and other files; return the commit's hash."""
        for name, text in {"site.yml": content, **files}.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        signing = "--gpg-sign" if signed else "--no-gpg-sign"
        self.git("commit", "--quiet", signing, f"--message={content}")
        return self.git("rev-parse", "HEAD")

    def set_ref(self, ref: str, oid: str) -> None:
        """Write a ref to the file system, without the checks of git."""
        path = self.path / ".git" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{oid}\n")


class Host:
    """A host that pulls: the directory of the unit, and the keys that it accepts."""

    def __init__(self, home: Path, server: Server, signers: Path) -> None:
        self.home = home
        self.checkout = home / "repository"
        self.signers = signers
        self.program = PROGRAM
        self.prefix: list[str] = []
        self.environment = {**ENVIRONMENT, "HOME": str(home)}
        self._server = server
        home.mkdir()

    def take(
        self, revision: str | None = "main", *options: str, verify: bool = True, **other: Any
    ) -> str:
        """Run the program; return why it refused the commit, or an empty string."""
        galaxy = Path(sys.executable).with_name("ansible-galaxy")
        words = {
            "home": self.home,
            "repository": self._server.path,
            "requirements": "requirements.yml",
            "galaxy": galaxy,
            "collections": self.home / "collections",
            **({"revision": revision} if revision else {}),
            **({"allowed-signers": self.signers} if verify else {}),
            **other,
        }
        argv = [f"--{name}={value}" for name, value in words.items()]
        done = subprocess.run(
            [
                *self.prefix,
                sys.executable,
                "-I",
                self.program,
                *argv,
                *(["--verify"] if verify else []),
                *options,
            ],
            cwd=self.checkout if self.checkout.exists() else "/",
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1)
        assert "take_commit.py" not in done.stderr, done.stderr
        if not done.returncode:
            return ""
        (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("pull: ")]
        return sentence

    @property
    def runs(self) -> str | None:
        """Return the content of the playbook that would run, or None."""
        site = self.checkout / "site.yml"
        return site.read_text() if site.exists() else None


def program() -> ModuleType:
    spec = spec_from_file_location("take_commit", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_key(path: Path) -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True
    )
    return path


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "server", make_key(tmp_path / "key"))


@pytest.fixture
def signers(tmp_path: Path, server: Server) -> Path:
    path = tmp_path / "signers"
    path.write_text(f"{KEEPER} {server.key.with_suffix('.pub').read_text()}")
    path.chmod(0o644)
    return path


@pytest.fixture
def host(tmp_path: Path, server: Server, signers: Path) -> Host:
    return Host(tmp_path / "home", server, signers)


def test_a_signed_commit_is_taken_and_then_the_next(host: Host, server: Server) -> None:
    for content in ("first", "second"):
        server.commit(content)
        assert host.take() == ""
        assert host.runs == content


@pytest.mark.parametrize("earlier", ["signed", None])
def test_nothing_of_an_unsigned_commit_reaches_the_checkout(
    host: Host, server: Server, tmp_path: Path, earlier: str | None
) -> None:
    if earlier:
        server.commit(earlier)
        assert host.take() == ""
    marks = tmp_path / "marks"
    other = Server(tmp_path / "sub", server.key)
    other.commit("submodule")
    server.git("submodule", "--quiet", "add", str(other.path), "sub")
    planted = {".gitattributes": "* filter=planted", "ansible.cfg": "[defaults]\n"}
    server.commit("unsigned", signed=False, **planted)
    attributes = tmp_path / "gitconfig"
    attributes.write_text(f'[filter "planted"]\n\tsmudge = tee {marks}\n\trequired\n')
    for _pull in range(2):
        assert "has no valid signature" in host.take()
        assert host.runs == earlier
        assert not (host.checkout / "ansible.cfg").exists()
        assert not (host.home / "repository.git/modules").exists()
        assert not marks.exists()


def test_a_tag_of_the_branchs_name_lends_it_no_signature(host: Host, server: Server) -> None:
    server.git("tag", "main", server.commit("signed"))
    server.commit("unsigned", signed=False)
    assert "has no valid signature" in host.take()
    assert host.runs is None


def test_a_branch_of_the_pinned_hashs_name_is_not_taken(host: Host, server: Server) -> None:
    pinned = server.commit("pinned")
    server.commit("other", signed=False)
    server.set_ref(f"refs/heads/{pinned}", server.git("rev-parse", "HEAD"))
    server.set_ref(f"refs/tags/{pinned}", server.git("rev-parse", "HEAD"))
    assert host.take(pinned) == ""
    assert host.runs == "pinned"
    assert host.take(pinned.upper(), verify=False) == ""
    assert host.runs == "pinned"


def test_a_pinned_hash_that_is_in_no_branch_is_taken(host: Host, server: Server) -> None:
    pinned = server.commit("pinned")
    server.git("commit", "--quiet", "--amend", "--gpg-sign", "--message=another")
    server.git("config", "uploadpack.allowAnySHA1InWant", "true")
    assert host.take(pinned) == ""
    assert host.runs == "pinned"


def test_a_tag_that_was_signed_by_another_name_is_refused(host: Host, server: Server) -> None:
    server.commit("first")
    server.git("tag", "--sign", "--message=1", "v1")
    server.set_ref("refs/tags/v2", server.git("rev-parse", "v1"))
    assert host.take("v1") == ""
    for revision in ("v2", "refs/tags/v2"):
        assert "was signed as v1" in host.take(revision)


def test_an_unsigned_tag_of_a_signed_commit_is_refused(host: Host, server: Server) -> None:
    server.commit("first")
    server.git("tag", "--annotate", "--message=1", "v1")
    assert "has no valid signature" in host.take("v1")


def test_a_branch_that_is_a_tag_is_refused(host: Host, server: Server) -> None:
    server.commit("first")
    server.git("tag", "--sign", "--message=1", "v1")
    server.set_ref("refs/heads/main", server.git("rev-parse", "v1"))
    for revision in ("main", "refs/heads/main", None):
        assert "which is not a commit" in host.take(revision)
    assert host.runs is None


def test_a_tag_of_something_else_than_a_commit_is_refused(host: Host, server: Server) -> None:
    server.commit("first")
    server.git("tag", "--sign", "--message=1", "v1", "HEAD^{tree}")
    assert "which is not a commit" in host.take("v1")


def test_replaced_objects_are_not_taken_for_the_signed_one(host: Host, server: Server) -> None:
    signed = server.commit("signed")
    unsigned = server.commit("unsigned", signed=False)
    server.git("reset", "--quiet", "--hard", signed)
    server.git("replace", signed, unsigned)
    assert host.take() == ""
    assert host.runs == "signed"


def test_a_signature_by_another_key_is_refused(host: Host, server: Server, tmp_path: Path) -> None:
    server.key = make_key(tmp_path / "stranger")
    server.commit("strange")
    assert "has no valid signature" in host.take()


def test_a_key_is_not_accepted_after_its_time(host: Host, server: Server) -> None:
    text = host.signers.read_text()
    host.signers.write_text(text.replace(" ", ' valid-before="20010101" ', 1))
    server.commit("late")
    assert "has no valid signature" in host.take()


class TestGnupg:
    """Signatures by keys of GnuPG."""

    @pytest.fixture
    def sign(self, server: Server, tmp_path: Path) -> Iterator[Callable[..., None]]:
        """Yield a function that commits with a new key, with its creation time and validity."""
        home = tmp_path / "gpg"
        home.mkdir(mode=0o700)
        program = tmp_path / "gpg-then"

        def commit(made: str = "", valid: str = "never", *options: str) -> None:
            time = ["--faked-system-time", made] if made else []
            gpg = ["gpg", "--quiet", "--batch", "--homedir", str(home), *time, *options]
            program.write_text(f'#!/bin/sh\nexec {shlex.join(gpg)} "$@"\n')
            program.chmod(0o755)
            generate = ["--passphrase", "", "--quick-generate-key", KEEPER, "ed25519", "sign"]
            subprocess.run([program, *generate, valid], check=True)
            (server.path / "site.yml").write_text(made or "now")
            server.git("add", "--all")
            key = ["-c", "gpg.format=openpgp", "-c", f"user.signingKey={KEEPER}"]
            words = [*key, "-c", f"gpg.program={program}", "commit", "--quiet", "--gpg-sign"]
            server.git(*words, "--message=Signed")

        yield commit
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)

    @pytest.fixture
    def keys(self, tmp_path: Path) -> Iterator[Path]:
        """Yield the directory of the accepted keys, which is empty."""
        keys = tmp_path / "keys"
        keys.mkdir(mode=0o700)
        yield keys
        subprocess.run(["gpgconf", "--homedir", keys, "--kill", "all"], check=True)

    def test_an_accepted_one_is_taken(
        self, host: Host, sign: Callable[..., None], keys: Path, tmp_path: Path
    ) -> None:
        sign()
        shutil.copy(tmp_path / "gpg/pubring.kbx", keys)
        assert host.take(**{"gnupg-home": keys}) == ""
        assert host.runs == "now"

    def test_one_that_has_expired_is_refused(
        self, host: Host, sign: Callable[..., None], keys: Path, tmp_path: Path
    ) -> None:
        sign("20200101T000000", "1d")
        shutil.copy(tmp_path / "gpg/pubring.kbx", keys)
        assert "has no valid signature" in host.take(**{"gnupg-home": keys})

    def test_one_that_is_not_accepted_is_refused(
        self, host: Host, sign: Callable[..., None], keys: Path
    ) -> None:
        sign()
        assert "has no valid signature" in host.take(**{"gnupg-home": keys})

    def test_one_below_the_directory_of_the_checkout_is_accepted_by_default(
        self, host: Host, sign: Callable[..., None], tmp_path: Path
    ) -> None:
        sign()
        words = {"verify": False, "home": host.home}
        assert "`pull_gnupg_home` is" in host.take("main", "--verify", **words)
        (host.home / ".gnupg").mkdir(mode=0o700)
        shutil.copy(tmp_path / "gpg/pubring.kbx", host.home / ".gnupg")
        assert host.take("main", "--verify", **words) == ""

    def test_a_key_that_comes_with_its_signature_is_not_accepted(
        self, host: Host, sign: Callable[..., None], keys: Path
    ) -> None:
        sign("", "never", "--include-key-block")
        self.configure(host, keys, "auto-key-import\n")
        assert "has no valid signature" in host.take(**{"gnupg-home": keys})
        assert host.runs is None

    @pytest.mark.skipif(os.geteuid() != 0, reason="root alone can mount")
    def test_options_for_all_users_of_the_host_do_not_count_either(
        self, host: Host, sign: Callable[..., None], keys: Path, tmp_path: Path
    ) -> None:
        sign("", "never", "--include-key-block")
        # GnuPG always reads /etc/gnupg. The overlay keeps the file out of this machine's /etc.
        options = tmp_path / "etc/gnupg"
        options.mkdir(parents=True)
        (options / "gpg.conf").write_text("auto-key-import\n")
        layers = f"lowerdir={tmp_path}/etc:/etc"
        host.prefix = [
            *("unshare", "--mount", "sh", "-euc"),
            'mount -t overlay overlay -o "$0" /etc; exec "$@"',
            layers,
        ]
        assert "has no valid signature" in host.take(**{"gnupg-home": keys})
        assert host.runs is None

    @pytest.mark.skipif(not shutil.which("dirmngr"), reason="dirmngr is not installed")
    @pytest.mark.parametrize(
        "setting", ["auto-key-retrieve", "keyserver-options auto-key-retrieve"]
    )
    def test_a_key_that_a_server_has_is_not_asked_for(
        self, host: Host, sign: Callable[..., None], keys: Path, tmp_path: Path, setting: str
    ) -> None:
        sign()
        export = ["gpg", "--homedir", tmp_path / "gpg", "--armor", "--export"]
        key = subprocess.run(export, stdout=subprocess.PIPE, check=True).stdout
        with serve(key) as (port, asked):
            self.configure(host, keys, f"{setting}\n")
            for home in (keys, host.home / ".gnupg"):
                (home / "dirmngr.conf").write_text(f"keyserver hkp://127.0.0.1:{port}\n")
            assert "has no valid signature" in host.take(**{"gnupg-home": keys})
        assert asked == []
        assert host.runs is None

    def test_a_key_ring_that_was_not_checked_is_not_read(
        self, host: Host, sign: Callable[..., None], keys: Path, tmp_path: Path
    ) -> None:
        sign()
        self.configure(host, keys, f"keyring {tmp_path}/gpg/pubring.kbx\n")
        assert "has no valid signature" in host.take(**{"gnupg-home": keys})

    def test_the_hosts_own_gpg_is_called(
        self, host: Host, sign: Callable[..., None], keys: Path, tmp_path: Path
    ) -> None:
        sign()
        shutil.copy(tmp_path / "gpg/pubring.kbx", keys)
        own = tmp_path / "own gpg"
        own.write_text(f'#!/bin/sh\ntouch {tmp_path}/called\nexec gpg "$@"\n')
        own.chmod(0o755)
        configuration = tmp_path / "gitconfig"
        configuration.write_text(f'[gpg]\n\tprogram = "{own}"\n')
        host.environment["GIT_CONFIG_GLOBAL"] = str(configuration)
        assert host.take(**{"gnupg-home": keys}) == ""
        assert (tmp_path / "called").exists()

    def configure(self, host: Host, keys: Path, content: str) -> None:
        """Write gpg.conf to the directory of the keys and to gpg's default directory."""
        default = host.home / ".gnupg"
        default.mkdir(mode=0o700)
        for home in (keys, default):
            (home / "gpg.conf").write_text(content)


@contextmanager
def serve(key: bytes) -> Iterator[tuple[int, list[str]]]:
    """Run a key server that answers each request with ``key``; yield its port and requests."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(key)

        def log_message(self, *_words: Any) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield http.server_port, asked
        http.shutdown()


class TestFormats:
    """The signer chooses the format of a signature, and so the program that accepts keys."""

    def test_openpgp_is_refused_where_ssh_keys_are_accepted(
        self, host: Host, server: Server, tmp_path: Path
    ) -> None:
        # Playbooks run with the same HOME: a key that one imports is in the default keyring.
        home = host.home / ".gnupg"
        home.mkdir(mode=0o700)
        words = ["--batch", "--quiet", "--passphrase", "", "--quick-generate-key", KEEPER]
        subprocess.run(["gpg", "--homedir", home, *words], check=True)
        program = tmp_path / "gpg-here"
        program.write_text(f'#!/bin/sh\nexec gpg --homedir {home} "$@"\n')
        program.chmod(0o755)
        server.commit("first", signed=False)
        key = ["-c", "gpg.format=openpgp", "-c", f"user.signingKey={KEEPER}"]
        server.git(*key, "-c", f"gpg.program={program}", "tag", "--sign", "--message=1", "v1")
        commit = ["commit", "--quiet", "--amend", "--gpg-sign", "--message=first"]
        server.git(*key, "-c", f"gpg.program={program}", *commit)
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
        for revision in ("main", "v1"):
            assert "OpenPGP requires `pull_gnupg_home`" in host.take(revision)
        assert host.runs is None

    def test_ssh_is_refused_where_keys_of_gnupg_are_accepted(
        self, host: Host, server: Server, signers: Path, tmp_path: Path
    ) -> None:
        configuration = tmp_path / "gitconfig"
        configuration.write_text(f'[gpg "ssh"]\n\tallowedSignersFile = {signers}\n')
        host.environment["GIT_CONFIG_GLOBAL"] = str(configuration)
        keys = tmp_path / "keys"
        keys.mkdir(mode=0o700)
        server.commit("first")
        server.git("tag", "--sign", "--message=1", "v1")
        for revision in ("main", "v1"):
            words = {"verify": False, "gnupg-home": keys}
            assert "SSH requires `pull_allowed_signers`" in host.take(revision, "--verify", **words)
        assert host.runs is None

    @pytest.mark.skipif(not shutil.which("gpgsm"), reason="gpgsm is not installed")
    @pytest.mark.parametrize("other", ["", "hidden"])
    def test_x509_is_refused(self, host: Host, server: Server, tmp_path: Path, other: str) -> None:
        keys = make_certificate(tmp_path / "x509")
        program = tmp_path / "gpgsm-here"
        program.write_text(f'#!/bin/sh\nexec gpgsm --homedir {keys} "$@"\n')
        program.chmod(0o755)
        key = ["-c", "gpg.format=x509", "-c", f"user.signingKey={KEEPER}"]
        server.commit("first", signed=False)
        server.git(*key, "-c", f"gpg.x509.program={program}", "tag", "-s", "--message=1", "v1")
        commit = ["commit", "--quiet", "--amend", "--gpg-sign", "--message=first"]
        server.git(*key, "-c", f"gpg.x509.program={program}", *commit)
        subprocess.run(["gpgconf", "--homedir", keys, "--kill", "all"], check=True)
        # The gpgsm of the host trusts the certificate.
        configuration = tmp_path / "gitconfig"
        configuration.write_text(f'[gpg "x509"]\n\tprogram = {program}\n')
        host.environment["GIT_CONFIG_GLOBAL"] = str(configuration)
        if other:
            # Without our check of the format, the program that git runs has to refuse.
            text = PROGRAM.read_text().replace("signature in _FORMATS and", "False and")
            host.program = tmp_path / "take_commit.py"
            host.program.write_text(text)
        expected = "has no valid signature" if other else "gpgsm decides by the host's own"
        for revision in ("main", "v1"):
            assert expected in host.take(revision, **{"gnupg-home": keys})
        assert host.runs is None


def make_certificate(home: Path) -> Path:
    """Create a GnuPG home with a certificate that it trusts; return the home."""
    home.mkdir(mode=0o700)
    gpgsm = ["gpgsm", "--homedir", str(home), "--batch", "--quiet"]
    (home / "gpgsm.conf").write_text("disable-crl-checks\n")
    request = home / "request"
    request.write_text(
        "Key-Type: RSA\nKey-Length: 2048\nKey-Usage: sign\nSerial: random\n"
        f"Name-DN: CN=Keeper\nName-Email: {KEEPER}\n"
    )
    # An empty passphrase, without a prompt.
    words = ["--pinentry-mode", "loopback", "--passphrase-fd", "0", "--armor", "--generate-key"]
    made = subprocess.run(
        [*gpgsm, *words, request], input=b"\n", stdout=subprocess.PIPE, check=True
    )
    subprocess.run([*gpgsm, "--import"], input=made.stdout, check=True)
    listed = [*gpgsm, "--with-colons", "--list-keys"]
    keys = subprocess.run(listed, stdout=subprocess.PIPE, check=True).stdout.decode()
    lines = [line.split(":") for line in keys.split("\n")]
    (fingerprint,) = [fields[9] for fields in lines if fields[0] == "fpr"]
    (home / "trustlist.txt").write_text(f"{fingerprint} S relax\n")
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    return home


class TestReplay:
    """A server sends an old commit, whose signature stays valid."""

    @pytest.fixture
    def old(self, host: Host, server: Server) -> str:
        old = server.commit("old")
        server.commit("new")
        assert host.take() == ""
        return old

    def test_an_older_commit_is_refused(self, host: Host, server: Server, old: str) -> None:
        server.git("reset", "--quiet", "--hard", old)
        refusal = host.take()
        assert f"is commit {old}, which is not a descendant of" in refusal
        assert "`pull_fast_forward_only: false`" in refusal
        assert host.runs == "new"

    def test_a_commit_of_another_branch_is_refused(
        self, host: Host, server: Server, old: str
    ) -> None:
        server.git("checkout", "--quiet", "-B", "main", old)
        server.commit("sibling")
        assert "not a descendant" in host.take()

    def test_it_is_taken_if_the_user_says_so_and_remembered(
        self, host: Host, server: Server, old: str
    ) -> None:
        server.git("reset", "--quiet", "--hard", old)
        assert host.take("main", "--allow-rewind") == ""
        assert host.runs == "old"
        assert host.take() == ""

    def test_a_moved_tag_is_held_to_the_same(self, host: Host, server: Server, old: str) -> None:
        server.git("tag", "stable")
        assert host.take("stable") == ""
        server.git("tag", "--force", "stable", old)
        assert "not a descendant" in host.take("stable")

    def test_another_revision_is_the_users_choice(self, host: Host, old: str) -> None:
        assert host.take(old) == ""
        assert host.runs == "old"

    def test_what_was_not_verified_is_not_remembered(
        self, host: Host, server: Server, old: str
    ) -> None:
        server.git("checkout", "--quiet", "-B", "next", old)
        server.commit("unsigned", signed=False)
        assert host.take("next", verify=False) == ""
        server.git("reset", "--quiet", "--hard", old)
        assert host.take("next", verify=False) == ""
        assert host.take("next") == ""


class TestKeysThatACommitCouldName:
    """The keys that verify signatures come from root, never from a commit."""

    @pytest.mark.parametrize("directory", ["repository", "collections", "repository.git"])
    def test_signers_among_what_was_fetched_are_refused(
        self, host: Host, server: Server, signers: Path, directory: str
    ) -> None:
        server.commit("first")
        (host.home / directory).mkdir()
        inside = shutil.copy(signers, host.home / directory / "signers")
        host.signers = Path(inside)
        assert "`pull_allowed_signers` is" in host.take()
        assert "a directory of the checkout" in host.take()

    def test_a_link_to_such_a_place_is_refused(
        self, host: Host, server: Server, signers: Path, tmp_path: Path
    ) -> None:
        server.commit("first")
        host.checkout.mkdir()
        shutil.copy(signers, host.checkout / "signers")
        link = tmp_path / "link"
        link.symlink_to(host.checkout / "signers")
        host.signers = link
        assert "a directory of the checkout" in host.take()

    def test_a_key_ring_that_is_such_a_link_is_refused(
        self, host: Host, server: Server, tmp_path: Path
    ) -> None:
        server.commit("first")
        host.checkout.mkdir()
        (host.checkout / "keys").touch()
        gnupg = tmp_path / "gnupg"
        gnupg.mkdir(mode=0o700)
        (gnupg / "pubring.kbx").symlink_to(host.checkout / "keys")
        assert "pubring.kbx is a symbolic link" in host.take(**{"gnupg-home": gnupg})

    def test_signers_that_others_may_write_are_refused(self, host: Host, server: Server) -> None:
        server.commit("first")
        host.signers.chmod(0o666)
        assert f"a user other than root may write to {host.signers}" in host.take()

    def test_signers_in_a_directory_that_others_may_write_are_refused(
        self, host: Host, server: Server, tmp_path: Path
    ) -> None:
        server.commit("first")
        directory = tmp_path / "keys"
        directory.mkdir()
        directory.chmod(0o777)
        host.signers = Path(shutil.copy(host.signers, directory / "signers"))
        assert f"a user other than root may write to {directory}" in host.take()

    @pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a file away")
    def test_signers_of_another_user_are_refused(self, host: Host, server: Server) -> None:
        server.commit("first")
        os.chown(host.signers, 12345, 0)
        assert f"a user other than root may write to {host.signers}" in host.take()

    @pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a file away")
    @pytest.mark.parametrize("name", ["gpg.conf-2", "trustlist.txt", "public-keys.d/pubring.db"])
    def test_any_file_of_gnupg_that_is_another_users_is_refused(
        self, host: Host, server: Server, tmp_path: Path, name: str
    ) -> None:
        server.commit("first")
        gnupg = tmp_path / "gnupg"
        (gnupg / name).parent.mkdir(mode=0o700, parents=True)
        (gnupg / name).touch()
        os.chown(gnupg / name, 12345, 0)
        refused = host.take(**{"gnupg-home": gnupg})
        assert f"a user other than root may write to {gnupg / name}" in refused

    def test_a_link_is_followed_once_and_not_again_by_git(
        self, host: Host, server: Server, signers: Path, tmp_path: Path
    ) -> None:
        # The owner of a link can change its target between the check and the verification.
        link = tmp_path / "link"
        link.symlink_to(signers)
        server.commit("first")
        host.signers = link
        assert host.take() == ""
        assert program()._checked_keys(host.home, None, str(link)) == (None, str(signers))

    def test_keys_that_are_not_there_are_refused(
        self, host: Host, server: Server, tmp_path: Path
    ) -> None:
        # In a shared directory, another user could create the file after the check.
        server.commit("first")
        host.signers = tmp_path / "nothing"
        assert "which does not exist" in host.take()


class TestTransports:
    """Only https, ssh and files of the host are accepted as transports."""

    @pytest.mark.parametrize("scheme", ["http", "git", "ftp", "ext"])
    def test_cleartext_and_commands_are_refused(self, host: Host, scheme: str) -> None:
        url = "ext::/bin/false" if scheme == "ext" else f"{scheme}://192.0.2.1/boards.git"
        assert f"transport '{scheme}' not allowed" in host.take(repository=url)

    @pytest.mark.parametrize("scheme", ["http", "git"])
    def test_submodules_are_held_to_the_same(self, host: Host, server: Server, scheme: str) -> None:
        head = server.commit("first")
        url = f"{scheme}://192.0.2.1/sub.git"
        modules = f'[submodule "sub"]\n\tpath = sub\n\turl = {url}\n'
        (server.path / ".gitmodules").write_text(modules)
        server.git("update-index", "--add", "--cacheinfo", f"160000,{head},sub")
        server.git("add", ".gitmodules")
        server.git("commit", "--quiet", "--gpg-sign", "--message=sub")
        assert f"transport '{scheme}' not allowed" in host.take()


class TestSubmodules:
    """Submodules of a signed commit replace anything that the checkout has at their paths."""

    @pytest.fixture
    def other(self, server: Server) -> Server:
        """Return the server of the submodule, which itself has the submodule ``inner``."""
        inner = Server(server.path.with_name("inner"), server.key)
        inner.commit("inner")
        other = Server(server.path.with_name("other"), server.key)
        other.git("submodule", "--quiet", "add", "../inner", "inner")
        other.commit("one", extra="extra")
        return other

    @pytest.fixture
    def add(self, server: Server, other: Server) -> Callable[[str], None]:
        """Return a function that commits the submodule at a path."""

        def add(path: str) -> None:
            server.git("submodule", "--quiet", "add", f"../{other.path.name}", path)
            server.git("submodule", "--quiet", "update", "--init", "--recursive")
            server.commit(f"with {path}")

        return add

    def drop(self, server: Server, path: str) -> None:
        """Remove the submodule for the next commit."""
        server.git("rm", "--quiet", "--force", path)
        (server.path / ".gitmodules").unlink(missing_ok=True)
        shutil.rmtree(server.path / ".git/modules")
        server.git("config", "--remove-section", f"submodule.{path}")

    def assert_taken(self, host: Host, path: str = "sub", content: str = "one") -> None:
        for _pull in range(2):
            assert host.take() == ""
            assert (host.checkout / path / "site.yml").read_text() == content
            assert (host.checkout / path / "inner/site.yml").read_text() == "inner"
            status = ["git", "-C", str(host.checkout), "status", "--porcelain", "-uno"]
            done = subprocess.run(status, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
            assert done.stdout == b""

    def test_one_is_taken_and_then_the_next(
        self, host: Host, server: Server, other: Server, add: Callable[[str], None]
    ) -> None:
        server.commit("first")
        add("sub")
        self.assert_taken(host)
        other.commit("two")
        server.git("submodule", "--quiet", "update", "--remote", "sub")
        server.commit("second")
        self.assert_taken(host, content="two")

    @pytest.mark.parametrize(
        ("when", "planted_at", "planted"),
        [
            ("before", "a/sub", "link"),
            ("after", "a", "link"),
            *at_night(
                *(
                    ("before", planted_at, planted)
                    for planted_at in ("a/sub", "a/sub/inner")
                    for planted in ("directory", "file", "link", "repository", "no one", "nowhere")
                    if (planted_at, planted) != ("a/sub", "link")
                ),
                ("before", "a", "link"),
                ("after", "a", "file"),
                ("after", "a/sub", "link"),
                ("after", "a/sub/inner", "repository"),
            ),
        ],
    )
    def test_what_lies_in_its_place_is_removed(
        self,
        host: Host,
        server: Server,
        add: Callable[[str], None],
        when: str,
        planted_at: str,
        planted: str,
    ) -> None:
        server.commit("first")
        if when == "before":
            assert host.take() == ""
        add("a/sub")
        if when == "after":
            assert host.take() == ""
        outside = host.home / "outside"
        (outside / "sub/inner").mkdir(parents=True)
        (outside / "sub/inner/kept").touch()
        target = host.checkout / planted_at
        _remove(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if planted == "file":
            target.touch()
        elif planted == "link":
            target.symlink_to(outside)
        else:
            target.mkdir()
            (target / "planted").touch()
            if planted == "repository":
                subprocess.run(["git", "init", "--quiet", target], check=True)
            elif planted == "no one":
                (target / ".git").mkdir()
            elif planted == "nowhere":
                (target / ".git").write_text("gitdir: ../nowhere\n")
        self.assert_taken(host, "a/sub")
        assert [path.name for path in outside.rglob("*")] == ["sub", "inner", "kept"]

    @pytest.mark.parametrize("becomes", ["link", *at_night("nothing", "directory", "file")])
    def test_one_that_becomes_something_else_leaves_nothing(
        self, host: Host, server: Server, add: Callable[[str], None], becomes: str
    ) -> None:
        server.commit("first")
        add("sub")
        self.assert_taken(host)
        self.drop(server, "sub")
        path = server.path / "sub"
        if becomes == "directory":
            path.mkdir()
            (path / "tracked").touch()
        elif becomes == "file":
            path.touch()
        elif becomes == "link":
            path.symlink_to("site.yml")
        server.commit("without")
        for _pull in range(2):
            assert host.take() == ""
            assert host.runs == "without"
            _assert_same_files(host.checkout, server.path)
        add("elsewhere")
        self.assert_taken(host, "elsewhere")

    @pytest.mark.nightly
    def test_a_nested_one_that_is_gone_leaves_nothing(
        self, host: Host, server: Server, other: Server, add: Callable[[str], None]
    ) -> None:
        server.commit("first")
        add("sub")
        self.assert_taken(host)
        self.drop(other, "inner")
        (other.path / "inner").mkdir()
        (other.path / "inner/tracked").touch()
        other.commit("two")
        server.git("submodule", "--quiet", "update", "--remote", "sub")
        server.commit("second")
        for _pull in range(2):
            assert host.take() == ""
            _assert_same_files(host.checkout / "sub", other.path)

    @pytest.mark.nightly
    def test_one_that_moves_leaves_nothing(
        self, host: Host, server: Server, add: Callable[[str], None]
    ) -> None:
        server.commit("first")
        add("sub")
        self.assert_taken(host)
        server.git("mv", "sub", "moved")
        server.commit("second")
        self.assert_taken(host, "moved")
        assert not (host.checkout / "sub").exists()

    @pytest.mark.parametrize("missing", ["HEAD", *at_night("objects", "refs", "config")])
    def test_one_whose_clone_was_interrupted_is_cloned_again(
        self, host: Host, server: Server, add: Callable[[str], None], missing: str
    ) -> None:
        server.commit("first")
        add("sub")
        self.assert_taken(host)
        _remove(host.home / "repository.git/modules/sub" / missing)
        self.assert_taken(host)

    def test_its_server_cannot_end_all_pulls_by_other_hashes(
        self, host: Host, server: Server, other: Server, add: Callable[[str], None]
    ) -> None:
        server.commit("first")
        add("sub")
        lie = Server(server.path.with_name("lie"), server.key, "--object-format=sha256")
        lie.commit("lie")
        truth = other.path.rename(server.path.with_name("truth"))
        lie.path.rename(other.path)
        assert "was not taken" in host.take()
        other.path.rename(lie.path)
        truth.rename(other.path)
        self.assert_taken(host)

    @pytest.mark.parametrize("way", ["merge", *at_night("rebase")])
    def test_the_commit_that_was_signed_is_taken_and_no_merge_with_another(
        self, host: Host, server: Server, other: Server, add: Callable[[str], None], way: str
    ) -> None:
        server.commit("first")
        add("sub")
        modules = server.path / ".gitmodules"
        modules.write_text(modules.read_text() + f"\tupdate = {way}\n")
        server.commit("second")
        self.assert_taken(host)
        other.git("commit", "--quiet", "--amend", "--message=rewritten")
        other.commit("two")
        server.git("-C", "sub", "fetch", "--quiet", "--force")
        server.git("-C", "sub", "checkout", "--quiet", "origin/main")
        server.commit("third")
        self.assert_taken(host, content="two")

    @pytest.mark.nightly
    def test_one_that_its_author_leaves_out_is_left_out(
        self, host: Host, server: Server, add: Callable[[str], None]
    ) -> None:
        server.commit("first")
        add("sub")
        modules = server.path / ".gitmodules"
        modules.write_text(modules.read_text() + "\tupdate = none\n")
        server.commit("second")
        assert host.take() == ""
        assert list((host.checkout / "sub").iterdir()) == []
        (host.checkout / "sub/mine").touch()
        assert host.take() == ""
        assert (host.checkout / "sub/mine").exists()

    @pytest.mark.nightly
    def test_untracked_files_in_one_stay(
        self, host: Host, server: Server, add: Callable[[str], None]
    ) -> None:
        server.commit("first")
        add("sub")
        self.assert_taken(host)
        (host.checkout / "sub/new").touch()
        (host.checkout / "sub/site.yml").write_text("changed")
        self.assert_taken(host)
        assert (host.checkout / "sub/new").exists()

    def test_a_name_that_leads_out_of_the_directory_of_all_is_refused(
        self, host: Host, server: Server, add: Callable[[str], None]
    ) -> None:
        server.commit("first")
        add("sub")
        modules = server.path / ".gitmodules"
        modules.write_text(modules.read_text().replace('"sub"', '"../../kept"'))
        server.commit("second")
        (host.home / "kept").mkdir()
        host.take()
        assert (host.home / "kept").exists()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _assert_same_files(checkout: Path, original: Path) -> None:
    actual, expected = (
        {
            str(path.relative_to(top)): path.is_dir()
            for path in top.rglob("*")
            if ".git" not in path.relative_to(top).parts
        }
        for top in (checkout, original)
    )
    assert actual == expected


class TestHashes:
    """The hash algorithm of a repository cannot change, nor can that of the fetched commits."""

    @pytest.fixture
    def swap(self, server: Server, tmp_path: Path) -> Callable[[], None]:
        """Return a function that switches the server between SHA-1 and SHA-256."""
        lie = Server(tmp_path / "lie", server.key, "--object-format=sha256")
        lie.commit("lie")

        def swap() -> None:
            between = tmp_path / "between"
            server.path.rename(between)
            lie.path.rename(server.path)
            between.rename(lie.path)

        return swap

    @pytest.mark.parametrize("verify", [True, False])
    def test_a_server_cannot_end_all_pulls_by_other_ones(
        self, host: Host, server: Server, swap: Callable[[], None], verify: bool
    ) -> None:
        server.commit("first", signed=False)
        swap()
        (server.path / "site.yml").write_text("unsigned lie")
        server.git("commit", "--quiet", "--all", "--no-gpg-sign", "--message=unsigned lie")
        assert (
            ("has no valid signature" in host.take()) if verify else host.take(verify=False) == ""
        )
        swap()
        server.commit("second")
        for _pull in range(2):
            assert host.take(verify=verify) == ""
            assert host.runs == "second"

    def test_the_last_commit_taken_is_not_forgotten_by_that(
        self, host: Host, server: Server, swap: Callable[[], None]
    ) -> None:
        old = server.commit("first")
        server.commit("second")
        assert host.take() == ""
        swap()
        refusal = host.take()
        assert "has sha256 hashes, but the commits fetched before have sha1" in refusal
        assert f"remove {host.home}/repository.git" in refusal
        assert "an older one as well (`pull_fast_forward_only`)" in refusal
        assert host.runs == "second"
        swap()
        assert host.take() == ""
        server.git("reset", "--quiet", "--hard", old)
        assert "not a descendant" in host.take()

    def test_a_repository_that_was_converted_is_taken_after_the_record_was_removed(
        self, host: Host, server: Server, swap: Callable[[], None]
    ) -> None:
        server.commit("first")
        assert host.take() == ""
        swap()
        assert "repository.git" in host.take()
        shutil.rmtree(host.home / "repository.git")
        assert host.take() == ""
        assert host.runs == "lie"

    def test_an_empty_repository_says_nothing_of_them(
        self, tmp_path: Path, signers: Path, server: Server
    ) -> None:
        empty = Server(tmp_path / "empty", server.key, "--object-format=sha256")
        host = Host(tmp_path / "home", empty, signers)
        assert host.take() != ""
        empty.commit("first")
        assert host.take() == ""
        assert host.runs == "first"

    def test_a_first_pull_that_was_killed_stops_nothing(self, host: Host, server: Server) -> None:
        server.commit("first")
        (host.home / "repository.git.new").mkdir()
        (host.home / "repository.git.new/HEAD").touch()
        (host.home / "repository.git").mkdir()
        assert host.take() == ""
        assert host.runs == "first"


@pytest.mark.parametrize(
    "name", ["main", None, "HEAD", "refs/heads/main", "v1", "refs/tags/v1", "light", "abbreviated"]
)
def test_each_way_to_name_a_commit_is_taken(host: Host, server: Server, name: str | None) -> None:
    commit = server.commit("first")
    server.git("tag", "--sign", "--message=1", "v1")
    server.git("tag", "light")
    assert host.take(commit[:10] if name == "abbreviated" else name) == ""
    assert host.runs == "first"


def test_hashes_may_be_longer(tmp_path: Path, signers: Path, server: Server) -> None:
    longer = Server(tmp_path / "longer", server.key, "--object-format=sha256")
    pinned = longer.commit("first")
    longer.commit("second")
    host = Host(tmp_path / "home", longer, signers)
    assert host.take() == ""
    assert host.runs == "second"
    assert host.take(pinned) == ""
    assert host.runs == "first"


def test_a_name_that_is_not_there_is_refused(host: Host, server: Server) -> None:
    server.commit("first")
    for name in ("next", "abcdef0", "main..main", "0" * 40):
        assert "was not taken" in host.take(name) or "does not exist" in host.take(name)


def test_unsigned_commits_and_rewritten_history_are_taken_where_nothing_is_verified(
    host: Host, server: Server
) -> None:
    old = server.commit("old", signed=False)
    server.commit("new", signed=False)
    assert host.take(verify=False) == ""
    server.git("reset", "--quiet", "--hard", old)
    assert host.take(verify=False) == ""
    assert host.runs == "old"


def test_a_signed_configuration_that_is_broken_is_followed_by_one_that_is_not(
    host: Host, server: Server
) -> None:
    server.commit(
        "broken", **{"ansible.cfg": "[defaults\n", "requirements.yml": "collections: []\n"}
    )
    assert "collections of requirements.yml were not installed" in host.take()
    server.commit("fixed", **{"ansible.cfg": "[defaults]\n"})
    assert host.take() == ""
    assert host.runs == "fixed"


def test_changes_in_the_checkout_are_thrown_away_and_new_files_stay(
    host: Host, server: Server
) -> None:
    server.commit("first", gone="gone")
    assert host.take() == ""
    (host.checkout / "site.yml").write_text("changed")
    (host.checkout / "new").touch()
    (server.path / "gone").unlink()
    server.commit("first ")
    assert host.take() == ""
    assert host.runs == "first "
    assert sorted(path.name for path in host.checkout.iterdir()) == [".git", "new", "site.yml"]


def test_a_checkout_that_was_made_otherwise_is_removed(host: Host, server: Server) -> None:
    host.checkout.mkdir()
    (host.checkout / "ansible.cfg").write_text("[defaults]\n")
    server.commit("first")
    assert host.take() == ""
    assert not (host.checkout / "ansible.cfg").exists()


def test_locks_that_a_killed_git_left_stop_nothing(host: Host, server: Server) -> None:
    server.commit("first")
    assert host.take() == ""
    for name in ("index.lock", "config.lock", "HEAD.lock", "refs/fetched/heads/main.lock"):
        (host.home / "repository.git" / name).touch()
    server.commit("second")
    assert host.take() == ""
    assert host.runs == "second"


def test_git_works_in_the_checkout(host: Host, server: Server) -> None:
    commit = server.commit("first")
    assert host.take() == ""
    words = ["git", "-C", str(host.checkout), "rev-parse", "HEAD"]
    said = subprocess.run(words, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
    assert said.stdout.decode().strip() == commit
    status = ["git", "-C", str(host.checkout), "status", "--porcelain"]
    assert subprocess.run(status, stdout=subprocess.PIPE, check=True).stdout == b""


def test_what_the_server_says_steers_no_terminal() -> None:
    assert program()._printable(b"remote: \x1b[2J\xc2\x9b\r\nend\n") == "remote: ?[2J??\nend"
