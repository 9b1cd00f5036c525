"""Calls the collection's modules on the hosts of an inventory, and returns their results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.harness.playbook import Run, TaskResult, play, refused_tasks_play, task_play

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


def call(inventory: Path, module: str, *arguments: str, **options: Any) -> Run:
    """Run a module, by its name within the collection."""
    return play(inventory, task_play(f"armfleet.vfio.{module}", options), *arguments)


def apply(
    inventory: Path, devices: Sequence[Mapping[str, Any]], *arguments: str, **options: Any
) -> Run:
    """Run host_policy with this list."""
    return call(inventory, "host_policy", *arguments, devices=list(devices), **options)


def apply_role(inventory: Path, variables: Mapping[str, Any], *arguments: str) -> Run:
    """Run the playbook that applies a host's list, and assert that it succeeds."""
    run = play(inventory, "armfleet.vfio.apply", *arguments, variables=variables)
    assert run.code == 0, run.output
    return run


def list_applier(
    listed: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> Callable[..., Run]:
    """Return a function that applies a list, this one if no other, with variables of the role."""

    def apply_listed(
        inventory: Path, *arguments: str, devices: Sequence[Mapping[str, Any]] | None = None
    ) -> Run:
        variables = {**settings, "passthrough_devices": listed if devices is None else devices}
        return apply_role(inventory, variables, *arguments)

    return apply_listed


def to_vfio(*paths: str) -> dict[str, Any]:
    """Return options of host_policy that bind the devices of these paths to VFIO."""
    entries = [{"dt_path": path, "policy": "vfio"} for path in paths]
    return {"devices": entries, "reset_required": False}


def apply_vfio(inventory: Path, *paths: str, **options: Any) -> Run:
    """Run host_policy with a list that binds the devices of these paths to VFIO."""
    return call(inventory, "host_policy", **to_vfio(*paths), **options)


def refused(
    inventory: Path, asked: Sequence[tuple[str, Mapping[str, Any]]], *arguments: str
) -> list[TaskResult]:
    """Run modules, each with its options, in one play, and assert that each is refused."""
    tasks = [(f"armfleet.vfio.{module}", options) for module, options in asked]
    run = play(inventory, refused_tasks_play(tasks), *arguments)
    assert [task.status for task in run.tasks] == ["failed"] * len(asked), run.output
    assert "Traceback" not in run.output
    return run.tasks


def info(inventory: Path, *devices: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what device_info returns for these devices, or for all."""
    asked = {"devices": list(devices)} if devices else {}
    run = call(inventory, "device_info", nulls=True, candidates=False, **asked)
    assert run.code == 0, run.output
    shown: list[dict[str, Any]] = run.of("armfleet.vfio.device_info")["devices"]
    return shown
