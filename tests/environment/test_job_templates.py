"""The job templates that the documentation shows, as AWX would read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/awx/job_templates.yml"
DATA: dict[str, list[dict[str, Any]]] = yaml.safe_load(EXAMPLE.read_text())
TEMPLATES = {template["name"]: template for template in DATA["controller_templates"]}
# The options of awx.awx.job_template that our templates may set.
OPTIONS = {
    *("name", "playbook", "project", "inventory", "execution_environment", "credentials"),
    *("job_type", "ask_job_type_on_launch", "diff_mode", "forks", "job_slice_count"),
    *("allow_simultaneous", "survey_enabled", "survey_spec", "extra_vars"),
}
QUESTION = {
    *("question_name", "question_description", "variable", "type", "required"),
    *("min", "max", "default"),
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_has_the_options_of_a_job_template(template: dict[str, Any]) -> None:
    assert set(template) <= OPTIONS
    assert (ROOT / "playbooks" / template["playbook"]).is_file()
    assert template["job_type"] in {"run", "check"}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_each_template_says_its_hosts_once(template: dict[str, Any]) -> None:
    survey = template.get("survey_spec", {"spec": []})["spec"]
    assert bool(survey) is template.get("survey_enabled", False)
    assert all(set(question) == QUESTION for question in survey)
    asked = [question["variable"] for question in survey]
    assert [*template.get("extra_vars", {}), *asked].count("passthrough_hosts") == 1


@pytest.mark.parametrize("playbook", ["rollout.yml", "rollback.yml", "reboot.yml"])
def test_what_changes_the_fleet_is_one_run(playbook: str) -> None:
    (template,) = [
        candidate for candidate in TEMPLATES.values() if candidate["playbook"] == playbook
    ]
    assert template["job_slice_count"] == 1
    assert template["allow_simultaneous"] is False


def test_a_schedule_is_of_a_template_that_asks_nothing() -> None:
    for schedule in DATA["controller_schedules"]:
        assert "survey_spec" not in TEMPLATES[schedule["unified_job_template"]]
