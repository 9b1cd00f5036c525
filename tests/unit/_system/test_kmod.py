"""The gateway to modprobe passes the right arguments and interprets the output."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system import kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmod import Kmod

Modprobe = Callable[[str], None]


@pytest.fixture
def modprobe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Modprobe:
    """Return a function that installs a modprobe: it logs its arguments and runs a script."""

    def install(script: str) -> None:
        program = tmp_path / "modprobe"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n{script}\n')
        program.chmod(0o755)

    monkeypatch.setattr(kmod, "_FOLDERS", (str(tmp_path), "/usr/bin", "/bin"))
    return install


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[], list[str]]:
    """Return a function that returns the arguments of the last call."""
    return lambda: (tmp_path / "arguments").read_text().splitlines()


def test_a_module_is_loaded_with_its_parameters(
    modprobe: Modprobe, asked: Callable[[], list[str]]
) -> None:
    modprobe("exit 0")
    Kmod().load("vfio-platform", {"reset_required": "N"})
    assert asked() == ["--", "vfio-platform", "reset_required=N"]
    Kmod().load("vfio-amba")
    assert asked() == ["--", "vfio-amba"]


def test_a_module_is_unloaded(modprobe: Modprobe, asked: Callable[[], list[str]]) -> None:
    modprobe("exit 0")
    Kmod().unload("vfio-platform")
    assert asked() == ["--remove", "--", "vfio-platform"]


@pytest.mark.parametrize(("code", "is_there"), [(0, True), (1, False)])
def test_a_module_is_available_if_modprobe_would_load_it(
    modprobe: Modprobe, asked: Callable[[], list[str]], code: int, is_there: bool
) -> None:
    modprobe(f"exit {code}")
    assert Kmod().is_available("vfio-platform") is is_there
    assert "--dry-run" in asked()
    assert asked()[-2:] == ["--", "vfio-platform"]


def test_a_modalias_is_resolved_as_udev_would_do_it(
    modprobe: Modprobe, asked: Callable[[], list[str]]
) -> None:
    modprobe("printf 'rtc_pl031\\nother\\n'")
    assert Kmod().resolve("of:NrtcT(null)Carm,pl031") == ["rtc_pl031", "other"]
    assert "--use-blacklist" in asked()
    assert asked()[-1] == "of:NrtcT(null)Carm,pl031"
    assert Kmod().claimants("of:NrtcT(null)Carm,pl031") == ["rtc_pl031", "other"]
    assert "--use-blacklist" not in asked()
    modprobe("echo noise; exit 1")
    assert Kmod().resolve("of:NrtcT(null)Carm,pl031") == []


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("insmod /lib/modules/x/vfio.ko.xz enable_unsafe_noiommu_mode=1", "1"),
        ("insmod /lib/x/vfio.ko enable_unsafe_noiommu_mode=1 enable_unsafe_noiommu_mode=0", "0"),
        ("insmod /lib/x/vfio.ko enable_unsafe_noiommu_mode", "1"),
        ("insmod /lib/x/vfio.ko enable_unsafe_noiommu_mode=", ""),
        ("insmod /lib/x/vfio.ko other=1", None),
        ('insmod /lib/x/vfio.ko enable_unsafe_noiommu_mode="1"', "1"),
        ('insmod /lib/x/vfio.ko other="a enable_unsafe_noiommu_mode=1 b"', None),
        ("builtin vfio", None),
    ],
)
def test_a_parameter_is_what_modprobe_would_load_the_module_with(
    modprobe: Modprobe, line: str, value: str | None
) -> None:
    modprobe(f"echo '{line}'")
    assert Kmod().parameter("vfio", "enable_unsafe_noiommu_mode") == value


VFIO_PLATFORM = "insmod /lib/modules/x/vfio.ko.xz\ninsmod /lib/modules/x/vfio-platform.ko x=1"


@pytest.mark.parametrize(
    ("module", "shown", "command"),
    [
        ("vfio-platform", VFIO_PLATFORM, ""),
        ("vfio_platform", VFIO_PLATFORM, ""),
        ("vfio", "builtin vfio", ""),
        ("vfio", "install /bin/false", "/bin/false"),
        ("vfio", "install /root/claim -x  a=1", "/root/claim -x a=1"),
        ("vfio", "insmod /lib/x/vfio.ko\ninsmod /lib/x/vfio.ko\ninstall /bin/false", ""),
        ("acme", "install /bin/true\ninstall /root/acme", "/root/acme"),
        ("acme", "libkmod: ERROR: ignoring bad line\ninstall /root/acme", "/root/acme"),
        # An alias leads to another module, or to none.
        ("acme", VFIO_PLATFORM, None),
        ("acme", "install /bin/true\ninsmod /lib/x/other.ko", None),
        ("acme", "", None),
        ("acme", "modprobe: FATAL: Module acme not found in directory /lib/modules/x", None),
    ],
)
def test_a_command_that_modprobe_runs_instead_of_loading_a_module_is_known(
    modprobe: Modprobe,
    asked: Callable[[], list[str]],
    module: str,
    shown: str,
    command: str | None,
) -> None:
    modprobe(f"cat << 'end'\n{shown}\nend")
    assert Kmod().command_instead(module) == command
    assert asked() == ["--show-depends", "--", module]


NAMES = ["vfio-reset:a", "vfio-reset:none", "vfio-reset:both", "-b", "vfio-reset:a"]
CLAIMED = {"vfio-reset:a": ["a_reset"], "vfio-reset:both": ["b_reset", "c_reset"]}
INSTALLED = "kernel/arch/arm64/crypto/sha1-ce.ko.xz: kernel/a.ko.xz\nkernel/b.ko:\n"


@pytest.mark.parametrize(
    ("dependencies", "claimed", "calls"),
    [
        (INSTALLED, CLAIMED, 1),
        (INSTALLED, {}, 1),
        ("", {}, 1),
        # The one that asked for all, and one for each name.
        ("", CLAIMED, 5),
        ("kernel/unknown.ko:\n", CLAIMED, 5),
        (INSTALLED, {**CLAIMED, "vfio-reset:none": ["sha1_ce"]}, 5),
    ],
)
def test_many_names_are_resolved_in_one_call_where_the_answers_can_be_told_apart(
    *,
    tmp_path: Path,
    modprobe: Modprobe,
    monkeypatch: pytest.MonkeyPatch,
    dependencies: str,
    claimed: dict[str, list[str]],
    calls: int,
) -> None:
    modules = tmp_path / "modules" / os.uname().release
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(dependencies)
    monkeypatch.setattr(kmod, "_MODULES", f"{modules.parent}/")
    answers = {**claimed, "sha1_ce": ["sha1_ce"]}.items()
    cases = "".join(f"{name}) printf '%s\\n' {' '.join(words)};;\n" for name, words in answers)
    modprobe(f'echo >> {tmp_path}/calls\nfor n; do case "$n" in\n{cases}esac; done')
    asking = Kmod()
    asking.claimants_at_once(NAMES)
    assert [asking.claimants(name) for name in NAMES] == [claimed.get(name, []) for name in NAMES]
    assert (tmp_path / "calls").read_text().count("\n") == calls


def test_a_list_of_modules_that_is_a_fifo_is_not_waited_for(
    tmp_path: Path, modprobe: Modprobe, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / os.uname().release).mkdir()
    os.mkfifo(tmp_path / os.uname().release / "modules.dep")
    monkeypatch.setattr(kmod, "_MODULES", f"{tmp_path}/")
    modprobe("echo sha1_ce")
    asking = Kmod()
    asking.claimants_at_once(NAMES)
    assert asking.claimants(NAMES[0]) == ["sha1_ce"]


def test_a_name_that_looks_like_an_option_is_none(
    modprobe: Modprobe, asked: Callable[[], list[str]]
) -> None:
    modprobe("exit 0")
    Kmod().is_available("--remove")
    assert asked()[-2:] == ["--", "--remove"]


def test_each_question_is_asked_once(modprobe: Modprobe, tmp_path: Path) -> None:
    modprobe(f"echo asked >> {tmp_path}/times; echo found")
    kmod = Kmod()
    assert [kmod.is_available("vfio-amba") for _time in range(3)] == [True] * 3
    assert [kmod.resolve("of:a") for _time in range(3)] == [["found"]] * 3
    assert (tmp_path / "times").read_text() == "asked\n" * 2


@pytest.fixture
def modinfo(tmp_path: Path) -> Callable[[str], None]:
    """Return a function that installs a modinfo beside the modprobe."""

    def install(script: str) -> None:
        program = tmp_path / "modinfo"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return install


def test_what_a_module_claims_is_told_by_modinfo(
    modprobe: Modprobe, modinfo: Callable[[str], None]
) -> None:
    modprobe("exit 1")
    modinfo('[ "$*" = "--field=alias -- acme" ] && echo "of:N*T*Ca" && echo "platform:b"')
    kmod = Kmod()
    assert [kmod.aliases("acme") for _time in range(2)] == [["of:N*T*Ca", "platform:b"]] * 2
    assert kmod.aliases("gone") is None


@pytest.mark.parametrize(
    ("script", "is_built_in"),
    [("echo builtin pl061", True), ("echo insmod /lib/builtin/a.ko", False), ("exit 1", False)],
)
def test_what_is_built_in_is_told_by_modprobe(
    modprobe: Modprobe, script: str, is_built_in: bool
) -> None:
    modprobe(script)
    assert Kmod().is_built_in("pl061") is is_built_in


# As modinfo of kmod 30 and 34 prints them; messages of errors are not ordered with the rest.
FIELDS = (
    "modinfo: ERROR: Module gone not found.\n"
    "filename:       /lib/modules/6.12/kernel/drivers/a-b.ko.xz\0"
    "license=GPL\0alias=of:N*T*Ca\0description=two\nalias=of:N*T*Cforged\nfilename: /none.ko\0"
    "alias=of:N*T*Cb\0name=a_b\0"
    "name:           pl061\0filename:       (builtin)\0alias=amba:d00041061*\0"
    "filename:       /lib/modules/6.12/updates/none.ko\0license=GPL\0"
)


def test_what_many_modules_claim_is_asked_in_one_call(
    modprobe: Modprobe, modinfo: Callable[[str], None], tmp_path: Path
) -> None:
    modprobe("exit 1")
    (tmp_path / "fields").write_text(FIELDS)
    modinfo(f'echo "$*" >>{tmp_path}/calls; [ "$1" = --null ] && cat {tmp_path}/fields; exit 1')
    kmod = Kmod()
    asked = ["a_b", "gone", "pl061", "none"]
    kmod.aliases_at_once([*asked, "a_b"])
    assert [kmod.aliases(module) for module in asked] == [
        ["of:N*T*Ca", "of:N*T*Cb"],
        None,
        ["amba:d00041061*"],
        [],
    ]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["--null -- a_b gone pl061 none", "--field=alias -- gone"]


def test_a_modinfo_that_knows_no_such_option_is_asked_one_by_one(
    modprobe: Modprobe, modinfo: Callable[[str], None]
) -> None:
    modprobe("exit 1")
    modinfo('[ "$1" = --null ] && echo "usage: modinfo" && exit 1; echo "of:$3"')
    kmod = Kmod()
    kmod.aliases_at_once(["a", "b"])
    assert [kmod.aliases(module) for module in ("a", "b")] == [["of:a"], ["of:b"]]


def test_which_of_many_modules_are_built_in_is_asked_in_one_call(
    modprobe: Modprobe, asked: Callable[[], list[str]]
) -> None:
    modprobe("echo insmod /lib/builtin/a.ko; echo builtin needed; echo builtin b_c; exit 1")
    kmod = Kmod()
    kmod.built_in_at_once(["a", "b-c", "gone"])
    modprobe("exit 1")
    assert [kmod.is_built_in(module) for module in ("a", "b-c", "gone")] == [False, True, False]
    assert asked()[-4:] == ["--", "a", "b-c", "gone"]


def test_what_is_not_signed_is_told_by_modinfo(
    modprobe: Modprobe, modinfo: Callable[[str], None]
) -> None:
    modprobe(
        "echo insmod /lib/vfio.ko.xz enable=1; echo builtin irqbypass; echo insmod /lib/a-b.ko"
    )
    modinfo('case "$3" in */vfio.ko.xz) echo PKCS#7;; *) echo;; esac')
    assert Kmod().unsigned("a-b") == ["a_b"]


def test_a_parameter_is_there_if_modinfo_knows_it(
    modprobe: Modprobe, modinfo: Callable[[str], None]
) -> None:
    modprobe("exit 0")
    modinfo("echo 'enable_unsafe_noiommu_mode:Enable UNSAFE (bool)'")
    assert Kmod().has_parameter("vfio", "enable_unsafe_noiommu_mode") is True
    assert Kmod().has_parameter("vfio", "enable_unsafe") is False
    modinfo("exit 1")
    assert Kmod().has_parameter("vfio", "enable_unsafe_noiommu_mode") is None


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_modprobes_own_words_are_in_the_error(modprobe: Modprobe, verb: str) -> None:
    modprobe("echo 'modprobe: FATAL: Module x is' >&2; echo 'in use.' >&2; exit 1")
    with pytest.raises(PolicyError) as caught:
        getattr(Kmod(), verb)("x")
    assert str(caught.value) == (
        f"Cannot {verb} the kernel module x: modprobe: FATAL: Module x is in use. Release or "
        "close the devices that are bound to it first"
    )


def test_a_modprobe_that_fails_without_a_word_is_told_by_its_code(modprobe: Modprobe) -> None:
    modprobe("exit 3")
    with pytest.raises(PolicyError, match="modprobe ended with 3"):
        Kmod().load("x")


def test_a_modprobe_that_hangs_is_given_up(modprobe: Modprobe) -> None:
    modprobe("exec sleep 60")
    start = time.monotonic()
    with pytest.raises(PolicyError, match=r"did not end within 0\.2 s; process \d+"):
        Kmod(timeout=0.2).load("x")
    assert time.monotonic() - start < 5


def test_without_modprobe_it_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kmod, "_FOLDERS", (str(tmp_path),))
    for ask in (Kmod().is_available, Kmod().load):
        with pytest.raises(PolicyError, match="modprobe is not installed"):
            ask("vfio-platform")
    assert Kmod().resolve("of:x") == []
    assert Kmod().parameter("vfio", "x") is None


def test_a_modprobe_that_cannot_be_started_is_a_sentence(
    tmp_path: Path, modprobe: Modprobe
) -> None:
    modprobe("exit 0")
    (tmp_path / "modprobe").write_bytes(b"\x7fELF no program at all")
    with pytest.raises(PolicyError, match="Cannot start"):
        Kmod().load("x")
