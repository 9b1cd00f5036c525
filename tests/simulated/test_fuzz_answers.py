# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any answer of a host becomes one row of a report, which can be written for all hosts."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import Findings
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers, _exporters
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import STATES, host_state
from ansible_collections.armfleet.vfio.plugins.plugin_utils._html_page import page
from ansible_collections.armfleet.vfio.plugins.plugin_utils._rollout_result import (
    OUTCOMES,
    rollout_state,
)
from tests.simulated.counts import Counts
from tests.unit.controller.test_documentation import ENTRY, INSPECTION

EXAMPLES = {"check": 2_000, "test": 5_000, "nightly": 100_000}
SEED = 16
HONEST = json.loads(json.dumps(device_info.inspections(Findings([INSPECTION], [ENTRY]))))
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 10**17, 1.5, "", "x", [], {}, [[]], [{}], {"a": {}}, [None]),
    *("\x1b[2J", "\x9b", "\u202e", "\udc80", "\x00", "\u2028", "=1+1", "{{ 7 * 7 }}", "x" * 70_000),
    *("__proto__", "</script>", ["\udfff"], {"\x1b": "\x1b"}, {"failed": True}, [5, "a", None]),
]
KEYS = ["failed", "changed", "unreachable", "msg", "warnings", "exception", "results", "skipped"]


def mutated(generator: random.Random) -> dict[str, Any]:
    """Return an answer in which some values, at any depth, are not as documented."""
    answer: dict[str, Any] = copy.deepcopy(HONEST)
    for _number in range(generator.choice([1, 1, 1, 2, 5])):
        container, key = generator.choice([*entries(answer), (answer, generator.choice(KEYS))])
        if generator.random() < 0.1 and isinstance(container, dict):
            container.pop(key, None)
        else:
            container[key] = copy.deepcopy(generator.choice(VALUES))
    return answer


def entries(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every mapping and list inside ``data`` with each of its keys."""
    if isinstance(data, (dict, list)):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield data, key
            yield from entries(data[key])


def texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from texts([key, value])
    elif isinstance(data, list):
        for value in data:
            yield from texts(value)


def test_no_answer_keeps_a_report_from_being_written(depth: str, counts: Counts) -> None:
    generator = random.Random(SEED)
    malformed = 0
    for _number in range(EXAMPLES[depth]):
        answer = mutated(generator)
        try:
            kept = _answers.read("device_info", _answers.decode(json.dumps(answer)))
        except _answers.MalformedAnswerError:
            malformed += 1
        else:
            shown = texts({**kept, "msg": "", "exception": ""})
            assert all(map(str.isprintable, shown)), answer
        # A user's task may have registered an answer without the action plugin.
        host = host_state("board", answer)
        assert host["state"] in STATES
        assert rollout_state("board", 1, answer, answer, None, None)["outcome"] in OUTCOMES
        report = _exporters.Report([host], "Boards", datetime.now(UTC), "1")
        written = [
            _exporters.as_json(report),
            _exporters.as_csv(report),
            _exporters.as_prometheus(report),
            json.dumps(page(report, {})),
        ]
        assert "\x1b" not in "".join(written).encode().decode()
    counts.add("answers of a host", EXAMPLES[depth])
    counts.add("malformed ones among them", malformed)
