"""Bad input: one clear sentence, nothing changed, no traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import refused
from tests.harness.guests import unchanged

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest


pytestmark = pytest.mark.nightly

SMALL = {
    "driver_override": {"driver": "vfio-platform"},
    "no_autobind": {},
    "vfio_binding": {},
}


def entry(policy: str = "vfio", **selector: Any) -> dict[str, Any]:
    return dict(selector, policy=policy)


SPECIAL = ["a\nb", 'a"b', "a'b", "a*", "a|b", "a$b", "a%b", ""]
BAD_VALUES = {
    "name": [*SPECIAL, "a/b", ".."],
    "compatible": SPECIAL,
    "dt_path": ["/soc/" + value for value in SPECIAL],
}
PATHS = ["./soc/crypto@b000000", "/soc/../crypto"]


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    **{path: ("host_policy", {"devices": [entry(dt_path=path)]}) for path in PATHS},
    "several": (
        "host_policy",
        {"devices": [entry(dt_path="/soc/nothing@0"), entry(compatible="acme,dma", expect=7)]},
    ),
    **{module: (module, {**options, "devices": []}) for module, options in SMALL.items()},
    **{
        kind: ("host_policy", {"devices": [entry(**{kind: value}) for value in values]})
        for kind, values in BAD_VALUES.items()
    },
}


@pytest.fixture(scope="module")
def messages(guest: Guest, inventory: Path) -> dict[str, str]:
    """Return the message of each refusal, all from one play, which changes nothing."""
    with unchanged(guest):
        tasks = refused(inventory, list(ASKED.values()))
    return dict(zip(ASKED, [task.refusal for task in tasks], strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_not_absolute_and_plain_is_refused(
    messages: dict[str, str], path: str
) -> None:
    assert "'.' and '..' are not allowed" in messages[path]


def test_every_problem_is_named_at_once(messages: dict[str, str]) -> None:
    assert "no such node" in messages["several"]
    assert "expect is 7" in messages["several"]


@pytest.mark.parametrize("module", SMALL)
def test_the_small_modules_want_a_device(messages: dict[str, str], module: str) -> None:
    assert messages[module] == "`devices` is empty. Give at least one device"


@pytest.mark.parametrize("kind", BAD_VALUES)
def test_values_with_characters_of_their_own_are_refused(
    messages: dict[str, str], kind: str
) -> None:
    values, sentences = BAD_VALUES[kind], messages[kind].splitlines()
    assert len(sentences) == len(values)
    for value, sentence in zip(values, sentences, strict=True):
        assert sentence.startswith(f"{kind} {value!r} ")
