"""Bad input: one clear sentence, nothing changed, no traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import call

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.fixture(autouse=True)
def _nothing_changes(unchanged_guest: None) -> None:
    """No test changes the guest."""


def refused(inventory: Path, action: str, options: dict[str, Any], *arguments: str) -> str:
    """Return the module's own message; fails if the call went well or showed a traceback."""
    return call(inventory, action, *arguments, **options).refusal


@pytest.mark.parametrize("path", ["./soc/crypto@b000000", "/soc/../crypto"])
def test_a_path_that_is_not_absolute_and_plain_is_refused(inventory: Path, path: str) -> None:
    message = refused(inventory, "host_policy", {"devices": [entry(dt_path=path)]})
    assert "'.' and '..' are not allowed" in message


def test_every_problem_is_named_at_once(inventory: Path) -> None:
    devices = [entry(dt_path="/soc/nothing@0"), entry(compatible="acme,dma", expect=7)]
    message = refused(inventory, "host_policy", {"devices": devices})
    assert "no such node" in message
    assert "expect is 7" in message


@pytest.mark.parametrize("module", SMALL)
def test_the_small_modules_want_a_device(inventory: Path, module: str) -> None:
    message = refused(inventory, module, dict(SMALL[module], devices=[]))
    assert message == "`devices` is empty. Give at least one device"


@pytest.mark.parametrize("kind", BAD_VALUES)
def test_values_with_characters_of_their_own_are_refused(inventory: Path, kind: str) -> None:
    values = BAD_VALUES[kind]
    devices = [entry(**{kind: value}) for value in values]
    sentences = refused(inventory, "host_policy", {"devices": devices}).splitlines()
    assert len(sentences) == len(values)
    for value, sentence in zip(values, sentences, strict=True):
        assert sentence.startswith(f"{kind} {value!r} ")
