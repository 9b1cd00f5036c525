# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host calls a fact is no setting, and what the operator gave is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.armfleet.vfio.plugins.filter.host_states import host_states
from ansible_collections.armfleet.vfio.plugins.lookup.setting import LookupModule
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import without_facts
from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import (
    REQUIREMENTS,
    problems_of,
)
from tests.unit.controller.test_samples import documented

HOST = "board"
FACTS = {
    "drift_file": "theirs",
    "place": "theirs",
    "rollout_tolerated": 9,
    "report_mode": "0777",
    "found": "theirs",
    "ansible_facts": {},
}


class Fleet:
    """One host of an inventory, with facts of its own."""

    def __init__(self, folder: Path, **given: Any) -> None:
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {HOST: given}}}))
        self.loader = DataLoader()
        inventory = InventoryManager(self.loader, sources=[str(folder / "hosts.yml")])
        self.manager = VariableManager(self.loader, inventory)
        self.hostvars = HostVars(inventory, self.manager, self.loader)
        self.manager.set_host_facts(HOST, dict(FACTS))

    def setting(self, name: str, **of_the_play: Any) -> Any:
        """What the lookup returns in a task of this host."""
        variables = {**self.hostvars.raw_get(HOST), "hostvars": self.hostvars, **of_the_play}
        lookup = LookupModule(self.loader, Templar(self.loader, variables))
        (value,) = lookup.run([name], variables)
        return value


@pytest.fixture(autouse=True)
def injected_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let facts be variables, which is Ansible's default."""
    monkeypatch.setattr("ansible.constants.INJECT_FACTS_AS_VARS", True)
    # It is read once from ansible-core 2.20 on.
    monkeypatch.setattr("ansible.vars.manager._INJECT_FACTS", True, raising=False)


def test_a_setting_is_that_of_the_inventory(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, drift_file="ours", rollout_tolerated=1)
    assert fleet.hostvars[HOST]["drift_file"] == "theirs"
    assert fleet.setting("drift_file") == "ours"
    assert fleet.setting("rollout_tolerated") == 1


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_a_setting_that_was_not_given_has_its_default(tmp_path: Path, name: str) -> None:
    assert Fleet(tmp_path).setting(name) == REQUIREMENTS[name].default


def test_the_templates_of_a_setting_have_no_facts_either(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, place="ours", drift_file="{{ place }}/{{ inventory_hostname }}")
    assert fleet.setting("drift_file", inventory_hostname=HOST) == "ours/board"


def test_what_precedes_facts_is_a_setting(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, drift_file="inventory")
    assert fleet.setting("drift_file", drift_file="play") == "play"
    fleet.manager.set_nonpersistent_facts(HOST, {"report_mode": "0640"})
    assert fleet.setting("report_mode") == "0640"


def test_facts_neither_break_nor_mend_the_check_of_variables(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rollout_tolerated=-1, report_mode="0600")
    (problem,) = problems_of([HOST], fleet.hostvars, ["rollout_tolerated", "report_mode"])
    assert problem.startswith("rollout_tolerated is -1.")


def test_a_fact_is_no_registered_result(tmp_path: Path) -> None:
    (state,) = host_states([HOST], Fleet(tmp_path).hostvars, "found")
    assert state["state"] == "failed"
    assert state["sentence"].startswith("It was not read")


def test_an_ansible_core_that_keeps_facts_elsewhere_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    del fleet.manager._fact_cache
    with pytest.raises(AnsibleError, match="keeps facts in a way"):
        without_facts(fleet.hostvars)


def test_a_mapping_has_no_facts_apart() -> None:
    variables: dict[str, dict[str, Any]] = {HOST: {"drift_file": "ours"}}
    assert without_facts(variables) is variables


def test_the_sample_of_the_lookup_is_returned(tmp_path: Path) -> None:
    sample = documented("lookup.setting")["_list"]["sample"]
    assert [Fleet(tmp_path).setting("rollout_tolerated")] == sample
