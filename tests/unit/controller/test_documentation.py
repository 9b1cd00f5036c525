"""The documentation is true: modules accept its examples and return the results it describes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.armfleet.vfio.plugins.doc_fragments.devices import ModuleDocFragment
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import (
    DeviceOutcome,
    Outcome,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import (
    initramfs_images,
    last_applied,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.forecast import (
    Binding,
    BootState,
    ForeignConfig,
    OverrideSources,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.foreign_udev import Rule
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.in_sync import BootFile
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.installed_kernels import Kernel
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.modprobe_d import Line
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.rollout_backup import (
    RolloutStatus,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.rollout_history import (
    APPLIED,
    ChangedDevice,
    Rollout,
    Stamp,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.builtin_drivers import (
    BuiltinBinding,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.driver_match import Reason
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.kernel_options import (
    KernelOptions,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import Hazard
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity, State
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import (
    VFIO,
    Policy,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import Entry
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector
from ansible_collections.armfleet.vfio.plugins.module_utils._model.steps import (
    Obstacle,
    Step,
    StepKind,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info, results
from ansible_collections.armfleet.vfio.plugins.module_utils._report.candidates import Candidate
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import (
    Findings,
    Inspection,
    LostAtBoot,
    Sriov,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._report.lost_entries import LostEntry
from ansible_collections.armfleet.vfio.plugins.module_utils._report.vfio_support import VfioSupport
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import FileChange
from tests.harness.modules import NAMES, spec

ROOT = Path(__file__).parents[3]
PREFIX = "armfleet.vfio."
MODULES = NAMES
ROLES = ("passthrough", "pull", "report")
PREFIXES = tuple(f"{role}_" for role in ROLES)
OPTIONS_OF_ROLES = {
    role: yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())[
        "argument_specs"
    ]["main"]["options"]
    for role in ROLES
}
ROLE_OPTIONS = OPTIONS_OF_ROLES["passthrough"]

DEVICE = Identity("platform", "b000000.crypto")
CHANGED = DeviceOutcome(
    DEVICE, Policy(VFIO), State(), State(VFIO, VFIO), (Step(StepKind.BIND, "vfio"),)
)
OUTCOME = Outcome(
    [CHANGED],
    [],
    [FileChange(last_applied.RULES, None, "# rules")],
    builtin=[BuiltinBinding(DEVICE, "acme-crypto", "initcall_blacklist=acme_init", [])],
    rollout=RolloutStatus("crypto-v3", has_ended=False),
)
PAST = Rollout(
    "crypto-v3",
    None,
    None,
    devices=[ChangedDevice("/soc/x", None, None)],
    rolled_back=Stamp(),
)
ENTRY = Entry(Selector("name", DEVICE.name), Policy(VFIO))
ON_VFIO = Binding("vfio-platform", "vfio-platform")
INSPECTION = Inspection(
    DEVICE,
    State(),
    Reason("name", "the device's name, b000000.crypto, is the driver's name"),
    [Hazard("network", "eth0", "network interface eth0 is up")],
    OverrideSources(
        DEVICE.bus,
        ENTRY,
        ForeignConfig("/etc/driverctl.d/platform-b000000.crypto", ENTRY),
        [Rule("/etc/udev/rules.d/x.rules:1", [], "none", 0)],
    ),
    BootState(ON_VFIO, "driverctl sets it"),
    [Line("/etc/modprobe.d/x.conf:1", "blacklist acme", "blacklist", "acme")],
    builtin=BuiltinBinding(DEVICE, "acme-crypto", "initcall_blacklist=acme_init", []),
    lost=[LostAtBoot(Hazard("network", "eth0", "network interface eth0 is up"), is_accepted=False)],
    candidate=Candidate(
        [Obstacle("network", "in use: network interface eth0 is up", "eth0")],
        ENTRY.selector,
        VfioSettings(),
        [],
        has_reset=False,
        is_isolated=False,
    ),
    sriov=Sriov(2, 4),
)
VFIO_SUPPORT = VfioSupport(
    kernel="6.12",
    distribution=None,
    drivers={},
    iommus=[],
    noiommu=None,
    unsafe_interrupts={},
    signed_modules=None,
    initramfs_tool=None,
    has_systemd=True,
    options=KernelOptions(),
    deprecated={},
    missing=[],
)


def module_text(module: str, part: str) -> Any:
    imported = importlib.import_module(
        f"ansible_collections.{PREFIX}plugins.modules.{module}",
    )
    return yaml.safe_load(getattr(imported, part))


def errors_of(module: str, options: Mapping[str, Any]) -> list[str]:
    return ArgumentSpecValidator(**spec(module)).validate(dict(options)).error_messages


def mappings(data: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping inside ``data``, the outer ones first."""
    if isinstance(data, Mapping):
        yield data
        for value in data.values():
            yield from mappings(value)
    elif isinstance(data, list):
        for value in data:
            yield from mappings(value)


def calls(data: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return name and options of each task with a module of this collection."""
    return [
        (key[len(PREFIX) :], mapping[key] or {})
        for mapping in mappings(data)
        for key in mapping
        if key.startswith(PREFIX)
    ]


def role_variables(data: Any) -> list[Mapping[str, Any]]:
    """Return each mapping that sets variables of a role."""
    return [
        mapping for mapping in mappings(data) if any(key.startswith(PREFIXES) for key in mapping)
    ]


def markdown_files() -> list[Path]:
    directories = (ROOT, ROOT / "docs", *(ROOT / "roles" / role for role in ROLES))
    return [path for directory in directories for path in sorted(directory.glob("*.md"))]


def yaml_blocks(path: Path) -> list[Any]:
    return [
        yaml.safe_load(block)
        for block in re.findall(r"^```ya?ml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_are_accepted(module: str) -> None:
    examples = calls(module_text(module, "EXAMPLES"))
    assert module in [name for name, _options in examples]
    assert {str(options): errors_of(name, options) for name, options in examples} == {
        str(options): [] for _name, options in examples
    }


@pytest.mark.parametrize("path", markdown_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_pages_show_is_accepted(path: Path) -> None:
    for block in yaml_blocks(path):
        for module, options in calls(block):
            assert errors_of(module, options) == [], options
        for variables in role_variables(block):
            options = {
                name: option for role in ROLES for name, option in OPTIONS_OF_ROLES[role].items()
            }
            known = {name: options[name] for name in variables if name in options}
            assert sorted(set(variables) - set(known) - {"passthrough_hosts"}) == []
            result = ArgumentSpecValidator(known).validate(
                {name: variables[name] for name in known}
            )
            assert result.error_messages == []
            devices = variables.get("passthrough_devices", [])
            assert errors_of("host_policy", {"devices": devices}) == []


def test_the_readme_shows_how_the_role_is_used() -> None:
    blocks = yaml_blocks(ROOT / "README.md")
    assert role_variables(blocks)


def described(option: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of an option in the argument spec of a module or a role."""
    described = {key: option[key] for key in ("type", "elements", "default") if key in option}
    return dict(
        described,
        required=option.get("required", False),
        choices=sorted(option.get("choices", [])),
    )


def test_the_role_has_the_policy_list_of_the_module() -> None:
    ours = ROLE_OPTIONS["passthrough_devices"]["options"]
    theirs = spec("host_policy")["argument_spec"]["devices"]["options"]
    assert {name: described(ours[name]) for name in ours} == {
        name: described(theirs[name]) for name in theirs
    }


def test_the_role_has_the_options_of_the_module() -> None:
    options = spec("host_policy")["argument_spec"]
    # The rollout of a plan gives the one, the action plugin the other.
    shared = sorted(set(options) - {"devices", "plan", "request_digest"})
    assert [described(ROLE_OPTIONS["passthrough_" + name]) for name in shared] == [
        described(options[name]) for name in shared
    ]
    tasks = yaml.safe_load((ROOT / "roles/passthrough/tasks/main.yml").read_text())
    (passed,) = [options for module, options in calls(tasks) if module == "host_policy"]
    assert sorted(passed) == sorted([*shared, "devices", "plan"])


def test_selectors_are_described_alike_with_and_without_a_policy() -> None:
    alone, with_policy = (
        yaml.safe_load(text)["options"]["devices"]["suboptions"]
        for text in (ModuleDocFragment.DOCUMENTATION, ModuleDocFragment.POLICIES)
    )
    assert {name: with_policy[name] for name in alone} == alone
    assert sorted(set(with_policy) - set(alone)) == [
        "driver",
        "policy",
        "sriov_numvfs",
        "tag",
        "vfio_driver",
    ]


def test_the_options_of_an_entry_are_described_as_they_are_specified() -> None:
    documented = yaml.safe_load(ModuleDocFragment.POLICIES)["options"]["devices"]["suboptions"]
    specified = spec("host_policy")["argument_spec"]["devices"]["options"]
    assert {name: described(option) for name, option in documented.items()} == {
        name: described(option) for name, option in specified.items()
    }


def undescribed(returned: Any, fields: Mapping[str, Any], prefix: str = "") -> set[str]:
    """Return the keys that only ``returned`` or only the description of a result has."""
    differing = {prefix + key for key in set(returned) ^ set(fields)}
    for key in set(returned) & set(fields):
        inner = returned[key]
        contained = fields[key].get("contains")
        if contained:
            differing |= undescribed(
                inner[0] if isinstance(inner, list) else inner, contained, f"{prefix}{key}."
            )
    return differing


@pytest.mark.parametrize(
    "module", sorted(set(MODULES) - {"device_info", "initramfs", "last_answer"})
)
def test_what_a_module_returns_is_described(module: str) -> None:
    to_result = {"host_policy": results.list_result, "vfio_binding": results.vfio_result}
    returned = to_result.get(module, results.result)(OUTCOME)
    assert undescribed(returned, module_text(module, "RETURN")) == {"changed"}


def test_what_initramfs_returns_is_described() -> None:
    image = initramfs_images.Image("/boot/initrd.img-6.12", "6.12", is_rebuilt=True)
    returned = initramfs_images.result(initramfs_images.Rebuilt("dracut", ["dracut"], [image]))
    assert undescribed(returned, module_text("initramfs", "RETURN")) == {"changed"}


def test_what_device_info_returns_is_described() -> None:
    findings = Findings(
        [INSPECTION],
        [ENTRY],
        boot_files=[BootFile(last_applied.RULES, is_present=True, drift=[])],
        kernels=[Kernel("6.12", is_running=True, is_new=False, missing=[])],
        vfio_support=VFIO_SUPPORT,
        lost_entries=[LostEntry(ENTRY, ["/soc/x"], [], "it matches nothing")],
        rollouts=[(PAST, APPLIED)],
    )
    returned = device_info.inspections(findings)
    # The summary is added on the control node.
    assert undescribed(returned, module_text("device_info", "RETURN")) == {"summary"}
