"""What is made of commands in modprobe.d is what the modprobe that is installed here does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from board import CRYPTO, Board
from hypothesis import given, settings
from hypothesis import strategies as st
from module_tree import DEPMOD, MODPROBE, ModuleSource, install_modules

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.installed_kernels import (
    InstalledKernels,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE as OURS,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.modprobe_d import (
    Requirements,
    find_conflicts,
    lines,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.module_loading import (
    ModuleLoading,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmod import Kmod

real_kmod = pytest.mark.skipif(
    DEPMOD is None or MODPROBE is None, reason="kmod is not installed here"
)
VFIO = {
    "vfio": ModuleSource(softdeps=["post: vfio_iommu_type1 vfio_iommu_spapr_tce"]),
    "vfio_iommu_type1": ModuleSource(["vfio"]),
    "vfio-platform-base": ModuleSource(["vfio"]),
    "vfio-platform": ModuleSource(["vfio-platform-base", "vfio"]),
    "acme-core": ModuleSource(),
    "acme": ModuleSource(["acme-core"]),
}
ETC = "etc/modprobe.d"
OTHERS = f"{ETC}/zz-others.conf"


class KmodOfTree(Kmod):
    """The installed modprobe, with the modules and the configuration below ``root``."""

    def __init__(self, root: Path, configuration: str = ETC) -> None:
        super().__init__()
        self._options = ["--dirname", str(root), "--config", str(root / configuration)]

    def _run(self, arguments: Sequence[str], program: str = "modprobe") -> tuple[int, str]:
        return super()._run([*self._options, *arguments], program)


class KmodThatKnowsNothing(Kmod):
    def _run(self, arguments: Sequence[str], program: str = "modprobe") -> tuple[int, str]:
        return 1, f"{program} {' '.join(arguments)}: not found\n"


class KmodThatIsNotAsked(Kmod):
    def _run(self, arguments: Sequence[str], program: str = "modprobe") -> tuple[int, str]:
        raise AssertionError([program, *arguments])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root directory with VFIO's modules, one of a native driver and what it depends on."""
    install_modules(tmp_path, VFIO)
    (tmp_path / ETC).mkdir(parents=True)
    return tmp_path


def loading(root: Path, kmod: Kmod | None = None) -> ModuleLoading:
    files = Files(str(root))
    return ModuleLoading(kmod or KmodOfTree(root), lines(files, OURS), InstalledKernels(files))


def conflicts(root: Path, module: str, kmod: Kmod | None = None) -> list[str]:
    judge = loading(root, kmod)
    needed = judge.needed([module])
    conflicting = find_conflicts(
        judge.followed(needed), Requirements([module], {}), needed, lambda _module: False
    )
    return [sentence for _line, sentence in conflicting]


def configure(root: Path, content: str, path: str = OTHERS) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content + "\n")


@real_kmod
@pytest.mark.parametrize(
    ("line", "kept_away"),
    [
        ("install vfio-platform-base /bin/false", "vfio_platform_base"),
        ("install vfio_platform_base /bin/true", "vfio_platform_base"),
        ("install vfio*base /bin/false", "vfio_platform_base"),
        ("install vfio-platfor[^x]_* exit 1", "vfio_platform_base"),
        ("install vfio?platform /bin/true", "vfio_platform"),
        ("install vfio_platform_base /sbin/modprobe -i vfio", None),
        ("install vfio-platform-base /sbin/modprobe --ignore-install vfio-platform-base", None),
        ("install vfio*base /sbin/modprobe -qi $MODPROBE_MODULE", None),
        ("install vfio_platform_base /usr/local/sbin/claim", None),
        # vfio has a softdep that exists.
        ("install vfio /bin/false", None),
        ("install vfio /usr/local/sbin/claim", None),
        ("install vfio_iommu_type1 /bin/false", None),
        ("install vfio_platform /bin/false\nsoftdep vfio-platform pre: acme", None),
        ("install vfio_platform /bin/false\nsoftdep vfio-platform pre: none", "vfio_platform"),
        # The first command counts.
        ("install vfio_platform /root/claim\ninstall vfio_platform /bin/false", None),
        ("install vfio_platform /bin/false x\ninstall vfio_platform /root/claim", "vfio_platform"),
        ("blacklist vfio\nblacklist vfio_platform_base\nblacklist vfio_iommu_type1", None),
        ("blacklist vfio-platform", "vfio_platform"),
        ("install acme_core /bin/false", None),
    ],
)
def test_a_command_is_judged_as_modprobe_runs_it(
    tree: Path, line: str, kept_away: str | None
) -> None:
    configure(tree, line)
    sentences = conflicts(tree, "vfio-platform")
    assert len(sentences) == (kept_away is not None)
    if kept_away:
        shown = line.partition("\n")[0]
        assert sentences[0].startswith(
            f"/{OTHERS}:1 has '{shown}', so {kept_away}, which this list requires, is not loaded"
        )


@real_kmod
@pytest.mark.parametrize(
    ("line", "open_modules"),
    [
        ("install vfio-platform-base /usr/local/sbin/claim", ["vfio_platform_base"]),
        (
            "options vfio_platform_base x=1\ninstall vfio-p* /usr/local/sbin/claim",
            ["vfio_platform", "vfio_platform_base"],
        ),
        ("install vfio_platform_base /sbin/modprobe -i vfio", ["vfio_platform_base"]),
        ("install vfio_platform_base /bin/false", []),
        ("install vfio /usr/local/sbin/claim", []),
        ("install vfio_iommu_type1 /usr/local/sbin/claim", []),
        ("install acme* /usr/local/sbin/claim", []),
    ],
)
def test_so_it_is_with_one_that_may_load_it(tree: Path, line: str, open_modules: list[str]) -> None:
    configure(tree, line)
    run = loading(tree).running_commands(["vfio-platform"])
    assert [entry.module for entry in run] == open_modules
    number = 1 + line.count("\n")
    assert {entry.location for entry in run} <= {f"/{OTHERS}:{number}"}


@real_kmod
def test_a_command_for_vfio_counts_without_the_module_that_it_asks_for(tmp_path: Path) -> None:
    install_modules(tmp_path, {**VFIO, "vfio_iommu_type1": ModuleSource(["vfio"], ["pre: none"])})
    configure(tmp_path, "install vfio /bin/false")
    assert conflicts(tmp_path, "vfio-platform") == []
    other = tmp_path / "other"
    install_modules(other, {name: VFIO[name] for name in VFIO if name != "vfio_iommu_type1"})
    configure(other, "install vfio /bin/false")
    (sentence,) = conflicts(other, "vfio-platform")
    assert "so vfio, which this list requires, is not loaded at boot" in sentence


@real_kmod
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (OTHERS, "install acme_core /bin/false"),
        (OTHERS, "install acme?core /bin/true"),
        ("proc/cmdline", "module_blacklist=x,acme_core"),
    ],
)
def test_what_a_native_driver_depends_on_counts_as_well(tree: Path, path: str, line: str) -> None:
    configure(tree, line, path)
    (sentence,) = conflicts(tree, "acme")
    assert "so acme_core, which this list requires, is not loaded at boot" in sentence
    (of_forecast,) = loading(tree).of_module("acme")
    assert of_forecast.module == "acme"
    assert of_forecast.label in sentence
    assert conflicts(tree, "vfio-platform") == []


@real_kmod
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (OTHERS, "install vfio_platform_base /bin/false"),
        (OTHERS, "install vfio-platform-b* /usr/local/sbin/claim"),
        ("proc/cmdline", "module_blacklist=vfio_platform_base"),
    ],
)
def test_a_module_that_this_kernel_does_not_need_for_it_is_no_reason(
    tmp_path: Path, path: str, line: str
) -> None:
    """It is built in, or the kernel has it in one file with the module that is needed."""
    install_modules(tmp_path, {"vfio": VFIO["vfio"], "vfio-platform": ModuleSource(["vfio"])})
    configure(tmp_path, line, path)
    assert conflicts(tmp_path, "vfio-platform") == []
    assert loading(tmp_path).running_commands(["vfio-platform"]) == []


@real_kmod
def test_a_command_that_no_file_has_is_named_as_modprobe_shows_it(tree: Path) -> None:
    """modprobe is right: it may read a file that is not read here, or read it otherwise."""
    configure(tree, "install acme /bin/true")
    configure(tree, "install vfio-platform-base /bin/false", "elsewhere/x.conf")
    elsewhere = KmodOfTree(tree, "elsewhere")
    (sentence,) = conflicts(tree, "vfio-platform", elsewhere)
    assert sentence.startswith(
        "modprobe --show-depends vfio_platform_base has 'install /bin/false', so "
        "vfio_platform_base, which this list requires, is not loaded at boot"
    )
    assert conflicts(tree, "acme", elsewhere) == []


def test_where_modprobe_knows_no_module_the_files_decide(tmp_path: Path) -> None:
    configure(tmp_path, "install vfio /bin/true\ninstall vfio-platform-b* /root/claim")
    kmod = KmodThatKnowsNothing()
    (sentence,) = conflicts(tmp_path, "vfio-platform", kmod)
    assert sentence.startswith(f"/{OTHERS}:1 has 'install vfio /bin/true', so vfio, which")
    (line,) = loading(tmp_path, kmod).running_commands(["vfio-platform"])
    assert (line.module, line.location) == ("vfio_platform_base", f"/{OTHERS}:2")


def test_without_a_command_modprobe_is_not_asked(tmp_path: Path) -> None:
    configure(tmp_path, "blacklist acme\noptions vfio x=1")
    judge = loading(tmp_path, KmodThatIsNotAsked())
    assert judge.needed(["vfio-platform"]) == {"vfio", "vfio_platform", "vfio_platform_base"}
    assert [line.text for line in judge.blocking(["acme"])] == ["blacklist acme"]
    assert judge.running_commands(["vfio-platform"]) == []


NAMES = ["vfio", "vfio-platform", "vfio_platform_base", "vfio_iommu_type1", "acme_core", "acme"]
PATTERNS = [*NAMES, "vfio*", "*", "vfio_p*", "vfio-platfor[^x]*", "vfio_platform?base", "*[!e]"]
COMMANDS = ["/bin/false", "/bin/true", "a  b", "exit 1; c", "/sbin/modprobe -i vfio"]
INSTALL_LINES = st.builds("install {} {}".format, *map(st.sampled_from, (PATTERNS, COMMANDS)))
OTHER_LINES = st.one_of(
    st.builds(
        "softdep {} {} {}".format,
        *map(st.sampled_from, (PATTERNS, ["pre:", "post:"], ["acme", "none", "acme_core"])),
    ),
    st.builds("blacklist {}".format, st.sampled_from(PATTERNS)),
    st.builds("options {} x=1".format, st.sampled_from(NAMES)),
)


def show_depends(root: Path, module: str) -> tuple[set[str], set[str]]:
    """Return the modules that modprobe would insert for one, and the commands it would run."""
    output = KmodOfTree(root)._run(["--show-depends", "--", module])[1]
    steps = [line.split() for line in output.splitlines()]
    inserted = {Path(step[1]).stem.replace("-", "_") for step in steps if step[0] == "insmod"}
    return inserted, {" ".join(step[1:]) for step in steps if step[0] == "install"}


@real_kmod
@pytest.mark.parametrize("module", ["vfio-platform", "acme"])
def test_of_generated_files_modprobe_runs_the_same_commands_for_all_that_is_needed(
    tree: Path, module: str
) -> None:
    """For 300 files; modprobe is asked for the module alone, and judged are its dependencies."""
    ends = set()

    @given(
        st.lists(st.one_of(INSTALL_LINES, INSTALL_LINES, OTHER_LINES), min_size=1, max_size=6),
        st.lists(INSTALL_LINES, max_size=1),
    )
    @settings(max_examples=300, deadline=None)
    def look(content: list[str], earlier: list[str]) -> None:
        configure(tree, "\n".join(content))
        configure(tree, "\n".join(earlier), f"{ETC}/aa-others.conf")
        inserted, commands = show_depends(tree, module)
        judge = loading(tree)
        needed = judge.needed([module])
        run = [line for line in judge.followed(needed) if line.command == "install"]
        assert {line.module for line in run} == needed - inserted
        assert all(any(shown.startswith(" ".join(line.rest)) for shown in commands) for line in run)
        assert all(line.location.startswith(f"/{ETC}/") for line in run)
        ends.add(len(run))
        if not any(line.startswith("softdep") for line in content) and module == "acme":
            by_files = loading(tree, KmodThatKnowsNothing()).followed(needed)
            assert [line for line in by_files if line.command == "install"] == run

    look()
    assert len(ends) > 1


def test_a_list_is_applied_if_modprobe_ignores_the_command(board: Board) -> None:
    """vfio of the board has a softdep, as has that of the kernel."""
    board.write_file(f"/{OTHERS}", "install vfio /bin/false\n")
    outcome = board.apply([CRYPTO], reset_required=False)
    assert outcome.is_changed
    assert [warning for warning in outcome.warnings if OTHERS in warning] == []


def test_it_is_refused_if_modprobe_runs_one_for_what_the_module_needs(board: Board) -> None:
    board.write_file(f"/{OTHERS}", "install vfio-platform-b* /bin/false\n")
    before = board.everything()
    line = f"/{OTHERS}:1 has 'install vfio-platform-b* /bin/false', so "
    for persistent, reported in (
        (True, "vfio_platform_base, which this list requires, is not loaded at boot"),
        (False, "modprobe does not load vfio_platform_base, which VFIO needs now"),
    ):
        with pytest.raises(PolicyError) as caught:
            board.apply([CRYPTO], reset_required=False, persistent=persistent)
        assert line + reported in str(caught.value)
        assert board.everything() == before
