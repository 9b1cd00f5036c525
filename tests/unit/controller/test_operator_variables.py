# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts of a host never set a variable of the collection; variables of the operator do."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.playbook.block import Block
from ansible.plugins.lookup import LookupBase
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.armfleet.vfio.plugins.filter.host_states import host_states
from ansible_collections.armfleet.vfio.plugins.lookup.setting import LookupModule
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import (
    recorded,
    without_facts,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import (
    REQUIREMENTS,
    problems_of,
)

HOST = "board"
FACTS = {
    "drift_file": "theirs",
    "directory": "theirs",
    "rollout_max_failures": 9,
    "report_mode": "0777",
    "device_info": "theirs",
    "ansible_facts": {},
}


class Fleet:
    """An inventory with one host that has facts."""

    def __init__(self, playbook_dir: Path, **given: Any) -> None:
        (playbook_dir / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {HOST: given}}}))
        self.loader = DataLoader()
        self.loader.set_basedir(str(playbook_dir))
        inventory = InventoryManager(self.loader, sources=[str(playbook_dir / "hosts.yml")])
        self.manager = VariableManager(self.loader, inventory)
        self.hostvars = HostVars(inventory, self.manager, self.loader)
        self.manager.set_host_facts(HOST, dict(FACTS))

    def setting(self, name: str, **of_the_play: Any) -> Any:
        """Return the value of the lookup `setting` for this host."""
        (value,) = self.look_up(LookupModule, [name], **of_the_play)
        return value

    def look_up(self, plugin: type[LookupBase], terms: list[Any], **of_the_play: Any) -> list[Any]:
        """Return the values of a lookup for this host, outside of a task."""
        variables = {**self.hostvars.raw_get(HOST), "hostvars": self.hostvars, **of_the_play}
        values: list[Any] = plugin(self.loader, Templar(self.loader, variables)).run(
            terms, variables
        )
        return values

    def setting_in_task(
        self, name: str, given: dict[str, Any], where: str = "play", **of_the_play: Any
    ) -> Any:
        """Return the value of the lookup in a worker, with variables set at ``where``."""
        playbook_dir = Path(self.loader.get_basedir())
        at = {level: given if level == where else {} for level in ("play", "block", "task")}
        task = {"name": "Task", "debug": {}, "vars": at["task"]}
        content = {
            "name": "Play",
            "hosts": "all",
            "gather_facts": False,
            "vars": at["play"],
            "tasks": [{"name": "Block", "block": [task], "vars": at["block"]}],
            **of_the_play,
        }
        if where == "files":
            content["vars_files"] = [str(playbook_dir / "given.yml")]
            (playbook_dir / "given.yml").write_text(yaml.safe_dump(given))
        # The loader caches files by name.
        path = playbook_dir / f"{len(list(playbook_dir.iterdir()))}.yml"
        path.write_text(yaml.safe_dump([content]))
        playbook = Playbook.load(str(path), variable_manager=self.manager, loader=self.loader)
        (play,) = playbook.get_plays()
        (outer,) = play.tasks
        (block,) = outer.block if isinstance(outer.block[0], Block) else [outer]
        (current,) = block.block
        host = self.hostvars._inventory.get_host(HOST)
        variables = self.manager.get_vars(play=play, host=host, task=current)
        lookup = LookupModule(self.loader, Templar(self.loader, variables))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(multiprocessing.current_process(), "_task", current, raising=False)
            (value,) = lookup.run([name], variables)
        return value


@pytest.fixture(autouse=True)
def injected_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inject facts as variables, which is Ansible's default."""
    monkeypatch.setattr("ansible.constants.INJECT_FACTS_AS_VARS", True)
    # ansible-core 2.20 and later read the setting only once.
    monkeypatch.setattr("ansible.vars.manager._INJECT_FACTS", True, raising=False)


def test_a_setting_is_that_of_the_inventory(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, drift_file="ours", rollout_max_failures=1)
    assert fleet.hostvars[HOST]["drift_file"] == "theirs"
    assert fleet.setting("drift_file") == "ours"
    assert fleet.setting("rollout_max_failures") == 1


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_a_setting_that_was_not_given_has_its_default(tmp_path: Path, name: str) -> None:
    assert Fleet(tmp_path).setting(name) == REQUIREMENTS[name].default


def test_the_templates_of_a_setting_have_no_facts_either(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, directory="ours", drift_file="{{ directory }}/{{ inventory_hostname }}")
    assert fleet.setting("drift_file", inventory_hostname=HOST) == "ours/board"


def test_what_precedes_facts_is_a_setting(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, drift_file="inventory")
    assert fleet.setting("drift_file", drift_file="play") == "play"
    fleet.manager.set_nonpersistent_facts(HOST, {"report_mode": "0640"})
    assert fleet.setting("report_mode") == "0640"


@pytest.mark.parametrize(
    ("name", "value"),
    [("drift_file", "theirs"), ("rollout_max_failures", 9), ("drift_file", "{{ directory }}")],
)
@pytest.mark.parametrize("where", ["play", "block", "task", "files"])
def test_a_variable_of_the_play_with_the_value_of_a_fact_is_a_setting(
    tmp_path: Path, name: str, value: Any, where: str
) -> None:
    fleet = Fleet(tmp_path, drift_file="inventory", rollout_max_failures=1)
    fleet.manager.set_host_facts(HOST, {**FACTS, name: value})
    expected = "ours" if value == "{{ directory }}" else value
    assert fleet.setting_in_task(name, {name: value, "directory": "ours"}, where) == expected


def test_a_fact_that_nothing_precedes_is_no_setting_in_a_task_either(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, drift_file="inventory")
    assert fleet.setting_in_task("drift_file", {}) == "inventory"
    assert fleet.setting_in_task("rollout_max_failures", {}) == 0
    indirect = {"rollout_max_failures": "{{ vars['report_mode'] | default('none') }}"}
    assert fleet.setting_in_task("rollout_max_failures", indirect) == "none"


def test_facts_choose_no_file_of_variables(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    (tmp_path / "theirs.yml").write_text("drift_file: chosen\n")
    (tmp_path / "ours.yml").write_text("drift_file: ours\n")
    files = [["{{ directory | default('ours') }}.yml"]]
    assert fleet.setting_in_task("drift_file", {}, vars_files=files) == "ours"


def test_facts_neither_break_nor_mend_the_check_of_variables(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rollout_max_failures=-1, report_mode="0600")
    (problem,) = problems_of([HOST], fleet.hostvars, ["rollout_max_failures", "report_mode"])
    assert problem.startswith("rollout_max_failures is -1.")


def test_a_fact_is_no_registered_result(tmp_path: Path) -> None:
    (state,) = host_states([HOST], Fleet(tmp_path).hostvars, "device_info")
    assert state["state"] == "failed"
    assert state["message"].startswith("It was not read")


def test_an_ansible_core_that_keeps_facts_elsewhere_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    del fleet.manager._fact_cache
    with pytest.raises(AnsibleError, match="stores facts in a format"):
        without_facts(fleet.hostvars)


def test_a_mapping_has_no_facts_apart() -> None:
    variables: dict[str, dict[str, Any]] = {HOST: {"drift_file": "ours"}}
    assert without_facts(variables) is variables


def test_what_tasks_recorded_is_text_and_what_the_inventory_has_is_evaluated(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, registered_name="{{ 'a' ~ 'b' }}")
    answer = {"msg": "{{ lookup('pipe', 'id') }}", "devices": [{"name": "{{ 1 }}"}]}
    fleet.manager.set_nonpersistent_facts(HOST, {"registered": answer})
    given = recorded(fleet.hostvars)
    # ansible-core before 2.19 counts the control node.
    assert set(given) - {"localhost"} == {HOST}
    assert len(given) == len(list(given))
    assert given[HOST]["registered"] == answer
    assert given[HOST]["registered_name"] == "ab"
    assert given[HOST].get("unknown") is None
    assert not set(FACTS) & (set(given[HOST]) - {"ansible_facts"})
    assert len(given[HOST]) == len(list(given[HOST]))
    # One that is not ansible-core's own has no templates.
    assert recorded({HOST: {"x": "{{ 1 }}"}}) == {HOST: {"x": "{{ 1 }}"}}
