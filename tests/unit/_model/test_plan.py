"""The plan for a device has the steps from its state to its policy."""

from __future__ import annotations

from typing import List, Optional, Tuple

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import (
    Identity,
    Native,
    State,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.plan import host_steps, plan
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import (
    DEFAULT,
    DRIVER,
    NO_AUTOBIND,
    VFIO,
    Claim,
    Policy,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.steps import (
    HostStepKind,
    StepKind,
)

PLATFORM = Identity("platform", "1.x", "/soc/x@1")
AMBA = Identity("amba", "2.x", "/soc/x@2")
UIO = Policy(DRIVER, "uio")
NATIVE = Native("native", was_bound=True)

Steps = List[Tuple[StepKind, Optional[str]]]


def steps_of(
    policy: Policy,
    state: State,
    native: Native = NATIVE,
    *,
    device: Identity = PLATFORM,
    is_new: bool = True,
) -> Steps:
    made = plan(Claim(device, policy, is_new), state, native)
    return [(step.kind, step.value) for step in made.steps]


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (
            State("native"),
            [
                (StepKind.SET_OVERRIDE, "vfio-platform"),
                (StepKind.UNBIND, "native"),
                (StepKind.BIND, "vfio-platform"),
            ],
        ),
        (State(), [(StepKind.SET_OVERRIDE, "vfio-platform"), (StepKind.BIND, "vfio-platform")]),
        (State(None, "vfio-platform"), [(StepKind.BIND, "vfio-platform")]),
        (
            State("native", "vfio-platform"),
            [(StepKind.UNBIND, "native"), (StepKind.BIND, "vfio-platform")],
        ),
        (State("vfio-platform"), [(StepKind.SET_OVERRIDE, "vfio-platform")]),
        (State("vfio-platform", "native"), [(StepKind.SET_OVERRIDE, "vfio-platform")]),
        (
            State("uio", "uio"),
            [
                (StepKind.SET_OVERRIDE, "vfio-platform"),
                (StepKind.UNBIND, "uio"),
                (StepKind.BIND, "vfio-platform"),
            ],
        ),
        (State("vfio-platform", "vfio-platform"), []),
    ],
)
def test_a_device_comes_to_vfio_with_its_override_set_first(state: State, steps: Steps) -> None:
    assert steps_of(Policy(VFIO), state) == steps


def test_an_amba_device_comes_to_the_vfio_driver_of_its_bus() -> None:
    assert steps_of(Policy(VFIO), State(), device=AMBA) == [
        (StepKind.SET_OVERRIDE, "vfio-amba"),
        (StepKind.BIND, "vfio-amba"),
    ]


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (State("native"), [(StepKind.SET_OVERRIDE, "none"), (StepKind.UNBIND, "native")]),
        (State(), [(StepKind.SET_OVERRIDE, "none")]),
        (
            State("vfio-platform", "vfio-platform"),
            [(StepKind.SET_OVERRIDE, "none"), (StepKind.UNBIND, "vfio-platform")],
        ),
        (State("native", "none"), [(StepKind.UNBIND, "native")]),
        (State(None, "none"), []),
    ],
)
def test_no_autobind_takes_the_driver_away(state: State, steps: Steps) -> None:
    assert steps_of(Policy(NO_AUTOBIND), state) == steps


def test_no_autobind_without_unbinding_sets_the_override_alone() -> None:
    policy = Policy(NO_AUTOBIND, rebind=False)
    assert steps_of(policy, State("native")) == [(StepKind.SET_OVERRIDE, "none")]
    assert steps_of(policy, State("native", "none")) == []


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (
            State("native"),
            [(StepKind.SET_OVERRIDE, "uio"), (StepKind.UNBIND, "native"), (StepKind.BIND, "uio")],
        ),
        (State("uio"), [(StepKind.SET_OVERRIDE, "uio")]),
        (State("uio", "uio"), []),
        (State(None, "uio"), [(StepKind.BIND, "uio")]),
    ],
)
def test_a_device_is_pinned_to_a_driver(state: State, steps: Steps) -> None:
    assert steps_of(UIO, state) == steps


def test_an_override_alone_leaves_the_device_where_it_is() -> None:
    assert steps_of(UIO._replace(rebind=False), State("native")) == [(StepKind.SET_OVERRIDE, "uio")]
    assert steps_of(Policy(DEFAULT, rebind=False), State("vfio-platform", "x")) == [
        (StepKind.SET_OVERRIDE, None)
    ]


@pytest.mark.parametrize(
    ("state", "native", "steps"),
    [
        (
            State("vfio-platform", "vfio-platform"),
            NATIVE,
            [
                (StepKind.SET_OVERRIDE, None),
                (StepKind.UNBIND, "vfio-platform"),
                (StepKind.PROBE, "native"),
            ],
        ),
        (
            State("vfio-platform", "vfio-platform"),
            Native("native", "native_mod"),
            [
                (StepKind.SET_OVERRIDE, None),
                (StepKind.UNBIND, "vfio-platform"),
                (StepKind.LOAD_MODULE, "native_mod"),
                (StepKind.PROBE, "native"),
            ],
        ),
        (
            State("vfio-platform", "vfio-platform"),
            Native(),
            [
                (StepKind.SET_OVERRIDE, None),
                (StepKind.UNBIND, "vfio-platform"),
                (StepKind.PROBE, None),
            ],
        ),
        (
            State("uio", "uio"),
            NATIVE,
            [(StepKind.SET_OVERRIDE, None), (StepKind.UNBIND, "uio"), (StepKind.PROBE, "native")],
        ),
        (State(None, "none"), NATIVE, [(StepKind.SET_OVERRIDE, None), (StepKind.PROBE, "native")]),
        (State("native", "native"), NATIVE, [(StepKind.SET_OVERRIDE, None)]),
        (State("native", "none"), NATIVE, [(StepKind.SET_OVERRIDE, None)]),
        (State("native"), NATIVE, []),
        (State("somebodys"), NATIVE, []),
        (State(), NATIVE, [(StepKind.PROBE, "native")]),
        (State(), Native(), []),
    ],
)
def test_a_device_is_given_back_to_its_native_driver(
    state: State, native: Native, steps: Steps
) -> None:
    assert steps_of(Policy(DEFAULT), state, native) == steps


def test_a_device_that_has_no_driver_by_an_earlier_run_is_left_so() -> None:
    assert steps_of(Policy(DEFAULT), State(), NATIVE, is_new=False) == []


@pytest.mark.parametrize(
    ("release_of", "state", "is_given_back"),
    [
        (Policy(VFIO), State("vfio-platform", "vfio-platform"), True),
        (Policy(VFIO), State("native", "vfio-platform"), True),
        (Policy(VFIO), State("vfio-platform"), True),
        (Policy(VFIO), State(), True),
        (Policy(VFIO), State("uio", "uio"), False),
        (Policy(VFIO), State(None, "none"), False),
        (Policy(NO_AUTOBIND), State(None, "none"), True),
        (Policy(NO_AUTOBIND), State("vfio-platform", "vfio-platform"), False),
        (UIO, State("uio", "uio"), True),
        (UIO, State("native", "other"), False),
    ],
)
def test_only_what_is_as_we_left_it_is_given_back(
    release_of: Policy, state: State, is_given_back: bool
) -> None:
    steps = steps_of(Policy(DEFAULT, release_of=release_of), state)
    assert bool(steps) == is_given_back


@pytest.mark.parametrize("policy", [Policy(VFIO), Policy(NO_AUTOBIND), UIO, Policy(DEFAULT)])
@pytest.mark.parametrize("driver", [None, "native", "vfio-platform", "uio"])
@pytest.mark.parametrize("override", [None, "none", "vfio-platform", "uio", "native"])
def test_a_plan_carried_out_leaves_nothing_to_do(
    policy: Policy, driver: str | None, override: str | None
) -> None:
    made = plan(Claim(PLATFORM, policy), State(driver, override), NATIVE)
    after = State(made.driver, made.driver_override)
    assert steps_of(policy, after, is_new=False) == []


@pytest.mark.parametrize("policy", [Policy(VFIO), Policy(NO_AUTOBIND), UIO, Policy(DEFAULT)])
@pytest.mark.parametrize("driver", [None, "native", "vfio-platform", "uio"])
@pytest.mark.parametrize("override", [None, "none", "vfio-platform", "uio", "native"])
def test_the_override_always_comes_first(
    policy: Policy, driver: str | None, override: str | None
) -> None:
    kinds = [kind for kind, _value in steps_of(policy, State(driver, override))]
    assert StepKind.SET_OVERRIDE not in kinds[1:]


LOADED = ["vfio-platform", "vfio-amba"]
ON = VfioSettings(True, False)


@pytest.mark.parametrize(
    ("device", "registered", "wanted", "present", "expected"),
    [
        (PLATFORM, LOADED, VfioSettings(), ON, []),
        (PLATFORM, LOADED, VfioSettings(True, False), ON, []),
        (
            PLATFORM,
            [],
            VfioSettings(),
            VfioSettings(),
            [(HostStepKind.LOAD_MODULE, "vfio-platform", {})],
        ),
        (
            PLATFORM,
            [],
            VfioSettings(reset_required=False),
            VfioSettings(),
            [(HostStepKind.LOAD_MODULE, "vfio-platform", {"reset_required": "N"})],
        ),
        (
            PLATFORM,
            LOADED,
            VfioSettings(reset_required=False),
            ON,
            [(HostStepKind.RELOAD_MODULE, "vfio-platform", {"reset_required": "N"})],
        ),
        (
            PLATFORM,
            LOADED,
            VfioSettings(unsafe_noiommu=True),
            ON,
            [(HostStepKind.SET_NOIOMMU, "Y", {})],
        ),
        (
            PLATFORM,
            [],
            VfioSettings(False, True),
            VfioSettings(),
            [
                (HostStepKind.LOAD_MODULE, "vfio-platform", {"reset_required": "N"}),
                (HostStepKind.SET_NOIOMMU, "Y", {}),
            ],
        ),
        (
            AMBA,
            LOADED,
            VfioSettings(unsafe_interrupts=True),
            ON,
            [(HostStepKind.SET_INTERRUPTS, "Y", {})],
        ),
        (AMBA, LOADED, VfioSettings(unsafe_interrupts=True), VfioSettings(True, False, True), []),
        # The module of the parameter is not loaded, and nothing here loads it.
        (AMBA, LOADED, VfioSettings(unsafe_interrupts=False), ON, []),
        (
            AMBA,
            [],
            VfioSettings(unsafe_interrupts=False),
            VfioSettings(),
            [
                (HostStepKind.LOAD_MODULE, "vfio-amba", {}),
                (HostStepKind.SET_INTERRUPTS, "N", {}),
            ],
        ),
        (AMBA, LOADED, VfioSettings(reset_required=False), ON, []),
        (
            AMBA,
            [],
            VfioSettings(reset_required=False),
            VfioSettings(),
            [(HostStepKind.LOAD_MODULE, "vfio-amba", {})],
        ),
    ],
)
def test_the_vfio_modules_are_brought_to_what_is_asked_for(
    device: Identity,
    registered: list[str],
    wanted: VfioSettings,
    present: VfioSettings,
    expected: list[tuple[HostStepKind, str, dict[str, str]]],
) -> None:
    plans = [plan(Claim(device, Policy(VFIO)), State(), Native())]
    steps = host_steps(plans, registered, wanted, present)
    assert [(step.kind, step.value, step.parameters) for step in steps] == expected


def test_without_a_device_for_vfio_its_modules_are_left_alone() -> None:
    plans = [plan(Claim(PLATFORM, Policy(NO_AUTOBIND)), State("native"), NATIVE)]
    assert host_steps(plans, [], VfioSettings(False, True), VfioSettings()) == []
