# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernel modules, modprobe and modinfo."""

from __future__ import annotations

import argparse
import errno
import fnmatch
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, NoReturn

from .description import Driver, Module
from .kernel import Kernel
from .kstrtox import kstrtobool
from .pci_ids import alias
from .tree import File, failure
from .vfio import ENABLE_SRIOV, INTERRUPTS, IOMMUFD_INTERRUPTS, NOIOMMU

# Parameters that the kernel lets root change while the module is loaded.
_WRITABLE = (NOIOMMU, INTERRUPTS, IOMMUFD_INTERRUPTS, ENABLE_SRIOV)


class ModprobeError(Exception):
    """An error, with the message that modprobe prints."""


class Answer(NamedTuple):
    """Exit status and output of a program."""

    code: int
    output: str


class Modules:
    """The modules that this kernel has, loaded or not, and the drivers in them.

    ``failing`` holds the errnos with which the insertion of a module fails, by its name, and
    ``unsigned`` the names of those whose files have no signature.
    """

    def __init__(
        self, kernel: Kernel, modules: Iterable[Module], drivers: Sequence[Driver]
    ) -> None:
        self._kernel = kernel
        self._modules = {module.name: module for module in modules}
        self._drivers = [_in_module(driver) for driver in drivers]
        self._drivers_by_module: dict[str, list[Driver]] = {}
        for driver in self._drivers:
            self._drivers_by_module.setdefault(driver.module or "", []).append(driver)
        self.failing: dict[str, int] = {}
        self.unsigned: set[str] = set()
        self.is_vfio_held: Callable[[], bool] = lambda: False
        for driver, given in zip(self._drivers, drivers):
            if driver.module:
                module = Module(driver.module, built_in=given.module is None)
                self._modules.setdefault(driver.module, module)

    def add(self, module: Module, drivers: Sequence[Driver] = ()) -> None:
        """Install a module, or replace the one of the same name."""
        self._modules[module.name] = module
        self._drivers_by_module[module.name] = list(drivers)

    def forget(self, name: str) -> None:
        """Remove a module's file; a loaded module stays loaded."""
        del self._modules[name]
        self._drivers_by_module.pop(name, None)

    def installed(self) -> dict[str, tuple[Module, list[Driver]]]:
        """Return every module by its name, with the drivers in it."""
        return {name: (module, self._drivers_of(name)) for name, module in self._modules.items()}

    def boot(self) -> None:
        """Set up built-in modules, then load those that are loaded at boot."""
        for module in self._modules.values():
            if module.built_in:
                self._show(module, {})
        for driver in self._drivers:
            if self._modules[driver.module or ""].built_in:
                self._kernel.register(driver)
        for module in self._modules.values():
            if module.loaded:
                self.load(module.name)

    def request(self, name: str) -> bool:
        """Load a module as the kernel's request_module does; return whether it is loaded."""
        try:
            self._insert(name, {}, _Configuration())
        except (ModprobeError, OSError):
            return False
        return True

    def load(self, name: str) -> None:
        """Load a module with its defaults; raise ModprobeError or OSError if that fails."""
        self._insert(name, {}, _Configuration())

    def modprobe(self, arguments: Sequence[str], configuration: str) -> Answer:
        """Run modprobe; ``configuration`` is what 'modprobe --showconfig' prints."""
        try:
            asked = _PARSER.parse_args(arguments)
            return Answer(0, self._run(asked, _Configuration.parse(configuration)))
        except ModprobeError as error:
            return Answer(1, "" if "-q" in arguments or "--quiet" in arguments else f"{error}\n")

    def modinfo(self, arguments: Sequence[str]) -> Answer:
        """Run modinfo, for one field of a module or of its file, or for all fields of many."""
        if arguments[0] == "--null":
            known = [word for word in arguments[2:] if _underscored(word) in self._modules]
            output = "".join(self._all_fields(_underscored(word)) for word in known)
            return Answer(int(len(known) < len(arguments[2:])), output)
        field, _dashes, word = arguments
        name = _underscored(os.path.basename(word).partition(".")[0])
        module = self._modules.get(name)
        if module is None:
            return Answer(1, f"modinfo: ERROR: Module {word} not found.\n")
        lines = {
            "--field=alias": self._aliases(name),
            "--field=parm": [f"{parameter}:" for parameter in module.parameters],
            "--field=sig_id": [] if name in self.unsigned else ["PKCS#7"],
        }[field]
        return Answer(0, "".join(f"{line}\n" for line in lines))

    def _all_fields(self, name: str) -> str:
        """Return the path and the aliases of a module, as modinfo_do in kmod's tools/modinfo.c."""
        if self._modules[name].built_in:
            head = f"name:           {name}\0filename:       (builtin)\0"
        else:
            head = f"filename:       /lib/modules/{os.uname().release}/{name}.ko\0"
        return head + "".join(f"alias={alias}\0" for alias in self._aliases(name))

    def _run(self, asked: argparse.Namespace, configuration: _Configuration) -> str:
        if asked.all:
            return self._run_all(asked, configuration)
        name, parameters = asked.words[0], asked.words[1:]
        modules = list(self._resolve(name, configuration, obeys_blacklist=asked.use_blacklist))
        if not modules:
            raise _not_found(name, is_to_go=asked.remove)
        if asked.resolve_alias:
            return "".join(f"{module}\n" for module in modules)
        if asked.show_depends:
            return "".join(
                f"{self._step(needed, configuration)} {' '.join(configuration.words(needed))}\n"
                for module in modules
                for needed in self._with_needs(module)
            )
        for module in [] if asked.dry_run else modules:
            if asked.remove:
                self._remove(module)
            else:
                self._insert_as_asked(module, parameters, configuration)
        return ""

    def _run_all(self, asked: argparse.Namespace, configuration: _Configuration) -> str:
        """Run for each module despite failures, as insmod_all in kmod's tools/modprobe.c."""
        answers = []
        for word in asked.words:
            alone = argparse.Namespace(**{**vars(asked), "all": False, "words": [word]})
            with suppress(ModprobeError):
                answers.append(self._run(alone, configuration))
        return "".join(answers)

    def _insert_as_asked(
        self, module: str, parameters: Sequence[str], configuration: _Configuration
    ) -> None:
        settings = dict(word.partition("=")[::2] for word in parameters)
        try:
            self._insert(module, settings, configuration)
        except OSError as error:
            raise ModprobeError(
                f"modprobe: ERROR: could not insert '{module}': {error.strerror}"
            ) from None

    def _resolve(
        self, name: str, configuration: _Configuration, *, obeys_blacklist: bool
    ) -> Iterator[str]:
        plain = _underscored(name)
        candidates = (
            [plain]
            if plain in self._modules
            else [
                module
                for module in [*self._modules, *configuration.aliases]
                if any(
                    fnmatch.fnmatchcase(name, alias)
                    for alias in [*self._aliases(module), *configuration.aliases.get(module, [])]
                )
            ]
        )
        for module in dict.fromkeys(candidates):
            is_shut = obeys_blacklist and module in configuration.blacklist
            if module in self._modules and not is_shut:
                yield module

    def _aliases(self, name: str) -> list[str]:
        module = self._modules.get(name)
        aliases = list(module.aliases) if module else []
        if module and module.built_in:
            # Before 6.18, modules.builtin.modinfo has no aliases from tables of IDs.
            return aliases
        for driver in self._drivers_of(name):
            for compatible in driver.compatible:
                aliases += [f"of:N*T*C{compatible}", f"of:N*T*C{compatible}C*"]
            aliases += [f"amba:d{number}*" for number in driver.amba_ids]
            aliases += [f"acpi*:{hid}:*" for hid in driver.hids]
            aliases += [alias(identifier) for identifier in driver.pci_ids]
            aliases += [alias(identifier, "vfio_pci") for identifier in driver.vfio_ids]
        return aliases

    def _with_needs(self, name: str) -> Iterator[str]:
        for need in self._modules[name].needs:
            yield from self._with_needs(need)
        yield name

    def _insert(
        self, name: str, settings: Mapping[str, str], configuration: _Configuration
    ) -> None:
        if name not in self._modules:
            raise _not_found(name)
        if self._is_loaded(name):
            return
        for need in self._modules[name].needs:
            self._insert_need(need, configuration)
        self._put_in(name, settings, configuration)
        for follower in self._modules[name].then:
            with suppress(ModprobeError, OSError):
                self._insert(follower, {}, configuration)

    def _insert_need(self, name: str, configuration: _Configuration) -> None:
        """Insert a dependency, with its own dependencies and softdeps, as modprobe lists them."""
        self._insert(name, {}, configuration)
        for need in self._modules[name].needs:
            self._insert_need(need, configuration)
        for follower in self._modules[name].then:
            if not self._is_loaded(follower):
                self._put_in(follower, {}, configuration)

    def _put_in(
        self, name: str, settings: Mapping[str, str], configuration: _Configuration
    ) -> None:
        module = self._modules[name]
        code = self.failing.get(name)
        if code:
            raise failure(code)
        options = dict(word.partition("=")[::2] for word in configuration.words(name))
        values = {
            parameter: _checked(value, module.parameters[parameter])
            for parameter, value in {**options, **settings}.items()
            if parameter in module.parameters
        }
        self._kernel.tree.put(f"module/{name}/initstate", "live\n")
        self._kernel.tree.make_directory(f"module/{name}/holders")
        for need in module.needs:
            if not self._modules[need].built_in:
                self._kernel.tree.point(f"module/{need}/holders/{name}", f"module/{name}")
        self._show(module, values)
        for driver in self._drivers_of(name):
            self._kernel.register(driver)

    def _drivers_of(self, name: str) -> list[Driver]:
        return self._drivers_by_module.get(name, [])

    def _step(self, name: str, configuration: _Configuration) -> str:
        """Return what modprobe does for a module; no command is run for one with softdeps."""
        if self._modules[name].built_in:
            return f"builtin {name}"
        command = configuration.command(name)
        if command and not any(follower in self._modules for follower in self._modules[name].then):
            return f"install {command}"
        return f"insmod /lib/modules/{os.uname().release}/kernel/{name}.ko"

    def _show(self, module: Module, values: Mapping[str, str]) -> None:
        """Show the parameters; a built-in module without parameters is not shown at all."""
        for name, default in module.parameters.items():
            path = f"module/{module.name}/parameters/{name}"
            file = self._kernel.tree.put(path, values.get(name, default) + "\n")
            if path in _WRITABLE:
                file.mode = 0o644
                file.store = partial(_store_flag, file)

    def _remove(self, name: str) -> None:
        """Remove a module, as rmmod_do_module in kmod's tools/modprobe.c does."""
        if self._modules[name].built_in:
            raise ModprobeError(f"modprobe: FATAL: Module {name} is builtin.")
        if not self._is_loaded(name):
            return
        for follower in self._modules[name].then:
            with suppress(ModprobeError):
                self._remove(follower)
        if not self._is_loaded(name):
            reason = os.strerror(errno.ENOENT)
            raise ModprobeError(f"modprobe: ERROR: could not remove '{name}': {reason}")
        if self._is_in_use(name):
            raise ModprobeError(f"modprobe: FATAL: Module {name} is in use.")
        self._take_out(name)
        # Each is tried once, the innermost first: one that becomes unused later stays loaded.
        for need in dict.fromkeys(self._with_needs(name)):
            if need != name and self._is_loaded(need) and not self._is_in_use(need):
                self._take_out(need)

    def _take_out(self, name: str) -> None:
        self._kernel.tree.put(f"module/{name}/initstate", "going\n")
        for driver in self._drivers_of(name):
            self._kernel.unregister(driver)
        for need in self._modules[name].needs:
            if not self._modules[need].built_in:
                self._kernel.tree.remove(f"module/{need}/holders/{name}")
        self._kernel.tree.remove(f"module/{name}")

    def _is_in_use(self, name: str) -> bool:
        module = self._modules[name]
        is_held = module.held or (name == "vfio" and self.is_vfio_held())
        return module.built_in or is_held or bool(self._users(name))

    def _is_loaded(self, name: str) -> bool:
        return self._modules[name].built_in or self._kernel.tree.find(f"module/{name}") is not None

    def _users(self, name: str) -> list[str]:
        return [
            other.name
            for other in self._modules.values()
            if name in other.needs and self._is_loaded(other.name)
        ]


@dataclass
class _Configuration:
    """The configuration in modprobe.d and on the kernel command line."""

    blacklist: set[str] = field(default_factory=set)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    commands: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> _Configuration:
        configuration = cls()
        for line in text.splitlines():
            words = line.split()
            if words[:1] == ["blacklist"] and len(words) == 2:
                configuration.blacklist.add(_underscored(words[1]))
            elif words[:1] == ["alias"] and len(words) == 3:
                configuration.aliases.setdefault(_underscored(words[2]), []).append(words[1])
            elif words[:1] == ["options"] and len(words) > 2:
                configuration.options.setdefault(_underscored(words[1]), []).extend(words[2:])
            elif words[:1] == ["install"] and len(words) > 2:
                configuration.commands.append((_underscored(words[1]), " ".join(words[2:])))
        return configuration

    def command(self, module: str) -> str:
        """Return the command to run instead of inserting a module; empty if there is none."""
        matching = [run for name, run in self.commands if fnmatch.fnmatchcase(module, name)]
        return matching[0] if matching else ""

    def words(self, module: str) -> list[str]:
        """Return the options of a module, as 'name=value' each."""
        return self.options.get(module, [])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ModprobeError(f"modprobe: the simulator's modprobe does not take this: {message}")


def _parser() -> _Parser:
    parser = _Parser(prog="modprobe", add_help=False, allow_abbrev=False)
    for short, long in (
        ("-a", "--all"),
        ("-n", "--dry-run"),
        ("-q", "--quiet"),
        ("-r", "--remove"),
        ("-R", "--resolve-alias"),
        ("-b", "--use-blacklist"),
        ("-D", "--show-depends"),
        ("-v", "--verbose"),
    ):
        parser.add_argument(short, long, action="store_true")
    parser.add_argument("words", nargs="+")
    return parser


_PARSER = _parser()


def _in_module(driver: Driver) -> Driver:
    """Return the driver; one without a module of its own is in a built-in module."""
    return driver if driver.module else replace(driver, module=_underscored(driver.name))


def _not_found(name: str, *, is_to_go: bool = False) -> ModprobeError:
    where = "" if is_to_go else f" in directory /lib/modules/{os.uname().release}"
    return ModprobeError(f"modprobe: FATAL: Module {name} not found{where}{'.' * is_to_go}")


def _underscored(name: str) -> str:
    return name.replace("-", "_")


def _checked(value: str, default: str) -> str:
    """Return a parameter's value as the kernel shows it; a default of Y or N means a boolean."""
    if default not in ("Y", "N"):
        return value
    flag = kstrtobool(value)
    if flag is None:
        raise failure(errno.EINVAL)
    return "Y" if flag else "N"


def _store_flag(file: File, data: bytes) -> None:
    file.content = f"{_checked(data.decode(errors='replace'), 'N')}\n".encode()
