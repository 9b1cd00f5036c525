# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only gateway to modprobe and modinfo."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Mapping, Sequence

from .. import _text
from .._errors import PolicyError
from .kernel_parameters import kernel_parameters

if TYPE_CHECKING:
    from .files import Files

# Where modprobe reads its configuration, by precedence: modprobe.d(5).
CONFIGURATION = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)

# What module_sig_check, security_locked_down and try_stop_module make of it.
_ADVICE = {
    "Key was rejected": "Sign it with a key that this kernel trusts",
    "Operation not permitted": "The kernel accepts only signed modules, or no more modules "
    "(kernel.modules_disabled, lockdown); sign it, or load it at boot",
    "is in use": "Release or close the devices that are bound to it first",
    "not found": "Install the kernel package that has it",
}
_BLACKLIST = "--use-blacklist"
# What modinfo prints as the path of a module that is part of the kernel.
_BUILT_IN = "(builtin)"
_MODULES = "/lib/modules/"
# What modprobe --show-depends begins the lines with that name a module: print_action in kmod's
# tools/modprobe.c.
_INSERTED = ("insmod", "builtin")
_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
# What names are looked up in. depmod replaces all of them whenever modules are installed.
_INDEXES = ("modules.alias.bin", "modules.builtin.alias.bin", "modules.dep.bin")


class Kmod:
    """Asks modprobe about kernel modules and has it load and unload them.

    ``timeout`` is in seconds, for one call of modprobe.
    """

    def __init__(self, timeout: float = 30) -> None:
        self._timeout = timeout
        # What modprobe said already: a list has many devices and few drivers.
        self._available: dict[str, bool] = {}
        self._resolved: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        self._aliases: dict[str, list[str] | None] = {}
        self._built_in: dict[str, bool] = {}
        self._shown: dict[str, str] = {}

    def is_available(self, module: str) -> bool:
        """Return whether this kernel has ``module``, as a file or built in.

        PolicyError where there is no modprobe to ask.
        """
        if _path("modprobe") is None:
            raise PolicyError("modprobe is not installed on this host. Install the package kmod")
        if module not in self._available:
            self._available[module] = self._run(["--dry-run", "--quiet", "--", module])[0] == 0
        return self._available[module]

    def without_modules(self) -> str | None:
        """Return why no module of the running kernel can be loaded, or None if some can."""
        release = os.uname().release
        if os.path.exists(_MODULES + release + "/modules.dep"):
            return None
        if not os.path.isdir(_MODULES):
            return "no module of the running kernel (%s) can be loaded: %s does not exist" % (
                release,
                _MODULES.rstrip("/"),
            )
        others = [name for name in sorted(os.listdir(_MODULES)) if name != release]
        return (
            "no module of the running kernel (%s) can be loaded: %s/modules.dep does not exist%s"
            % (
                release,
                _MODULES + release,
                ", and there are modules of other kernels: " + ", ".join(others) if others else "",
            )
        )

    def explain_missing(self, module: str) -> str | None:
        """Return why this kernel cannot load ``module``, as a clause.

        None if it can, and where there is no modprobe to ask.
        """
        if _path("modprobe") is None or self.is_available(module):
            return None
        return self.without_modules() or "the running kernel (%s) has no module %s" % (
            os.uname().release,
            module,
        )

    def resolve(self, modalias: str) -> list[str]:
        """Return the modules that claim ``modalias``, as udev finds them; none if blacklisted."""
        return self._resolve(modalias, _BLACKLIST)

    def read_sources(self, files: Files) -> None:
        """Read of ``files`` what changes whenever an answer can change, but for a reboot.

        Not of :meth:`has_parameter` and :meth:`unsigned`, which read the file of a module.
        """
        files.names(_MODULES)
        for name in _INDEXES:
            files.version("%s%s/%s" % (_MODULES, os.uname().release, name))
        for directory in CONFIGURATION:
            for name in files.names(directory):
                files.version("%s/%s" % (directory, name))
        for directory in _FOLDERS:
            files.version(directory + "/modprobe")
            files.version(directory + "/modinfo")

    def resolve_at_once(self, modaliases: Sequence[str]) -> None:
        """Have :meth:`resolve` know the answers for many."""
        self._resolve_at_once(modaliases, _BLACKLIST)

    def claimants_at_once(self, modaliases: Sequence[str]) -> None:
        """Have :meth:`claimants` know the answers for many."""
        self._resolve_at_once(modaliases)

    def _resolve_at_once(self, modaliases: Sequence[str], *options: str) -> None:
        """modprobe does not say which of several names an answer belongs to, so the name of a
        module, which is its own answer, stands after each.

        Names that the module itself claims are asked one by one later, as all are without one.
        """
        unknown = [
            modalias
            for modalias in dict.fromkeys(modaliases)
            if (modalias, options) not in self._resolved
        ]
        if len(unknown) < 2:
            return
        module = _some_module()
        marks = [] if module is None else [module]
        asked = ["--resolve-alias", *options, "--quiet", "--all", "--"]
        asked += [name for modalias in unknown for name in (modalias, *marks)]
        answers: list[list[str]] = [[]]
        for word in _text.words(self._run(asked)[1]):
            if word == module:
                answers.append([])
            else:
                answers[-1].append(word)
        if answers == [[]]:
            answers *= len(unknown) + 1
        if len(answers) == len(unknown) + 1:
            keys = [(modalias, options) for modalias in unknown]
            self._resolved.update(zip(keys, answers))

    def claimants(self, modalias: str) -> list[str]:
        """Return the modules that claim ``modalias``, blacklisted or not."""
        return self._resolve(modalias)

    def _resolve(self, modalias: str, *options: str) -> list[str]:
        key = modalias, options
        if key not in self._resolved:
            asked = ["--resolve-alias", *options, "--quiet", "--", modalias]
            code, output = self._run(asked)
            self._resolved[key] = _text.words(output) if code == 0 else []
        return self._resolved[key]

    def aliases(self, module: str) -> list[str] | None:
        """Return the modalias patterns of ``module``, or None if modinfo does not know it."""
        if module not in self._aliases:
            code, output = self._run(["--field=alias", "--", module], program="modinfo")
            self._aliases[module] = None if code else _text.lines(output)
        return self._aliases[module]

    def aliases_at_once(self, modules: Sequence[str]) -> None:
        """Have :meth:`aliases` know the answers for many, but for what modinfo does not know."""
        unknown = [module for module in dict.fromkeys(modules) if module not in self._aliases]
        if len(unknown) > 1:
            _code, output = self._run(["--null", "--", *unknown], program="modinfo")
            self._aliases.update(_aliases_by_module(output))

    def is_built_in(self, module: str) -> bool:
        """Return whether ``module`` is built in, by the kernel's installed files."""
        if module not in self._built_in:
            self._built_in[module] = _text.words(self._depends(module))[:1] == ["builtin"]
        return self._built_in[module]

    def built_in_at_once(self, modules: Sequence[str]) -> None:
        """Have :meth:`is_built_in` know the answers for many."""
        unknown = [module for module in dict.fromkeys(modules) if module not in self._built_in]
        if len(unknown) > 1:
            output = self._run(["--show-depends", "--all", "--quiet", "--", *unknown])[1]
            lines = [_text.words(line) for line in _text.lines(output)]
            names = {words[1] for words in lines if words[:1] == ["builtin"] and len(words) > 1}
            self._built_in.update((module, canonical_name(module) in names) for module in unknown)

    def command_instead(self, module: str) -> str | None:
        """Return the command that modprobe runs instead of inserting ``module``.

        It is empty if modprobe inserts the module, whatever its configuration has, or if that is
        built in. None if modprobe does not know the module, or loads another one by that name.
        """
        steps = [_text.words(line) for line in _text.lines(self._depends(module))]
        inserted = [words[1] for words in steps if len(words) > 1 and words[0] in _INSERTED]
        if canonical_name(module) in map(module_of, inserted):
            return ""
        commands = [words[1:] for words in steps if words[:1] == ["install"]]
        # The module itself is the last one, but for softdeps that follow it: with these modprobe
        # runs no command (__kmod_module_fill_softdep in libkmod/libkmod-module.c).
        return " ".join(commands[-1]) if commands and steps[-1][:1] == ["install"] else None

    def parameter(self, module: str, name: str) -> str | None:
        """Return the value that ``module`` would be loaded with, by modprobe's configuration or the
        kernel's command line; None if neither sets it.
        """
        words = kernel_parameters(self._depends(module))
        values = [word for word in words if word.partition("=")[0] == name]
        if not values:
            return None
        _name, equals, value = values[-1].partition("=")
        # param_set_bool in kernel/params.c.
        return value if equals else "1"

    def has_parameter(self, module: str, name: str) -> bool | None:
        """Return whether ``module`` has the parameter, or None if modinfo does not know it."""
        code, output = self._run(["--field=parm", "--", module], program="modinfo")
        if code:
            return None
        return any(line.partition(":")[0] == name for line in _text.lines(output))

    def unsigned(self, module: str) -> list[str]:
        """Return unsigned module files among ``module`` and its dependencies, loaded or not."""
        files = [
            words[1]
            for words in map(_text.words, _text.lines(self._depends(module)))
            if words[:1] == ["insmod"] and len(words) > 1
        ]
        return [
            module_of(path)
            for path in files
            if not _text.words(self._run(["--field=sig_id", "--", path], program="modinfo")[1])
        ]

    def _depends(self, module: str) -> str:
        """Return what would be loaded for ``module``, and with which parameters."""
        if module not in self._shown:
            self._shown[module] = self._run(["--show-depends", "--", module])[1]
        return self._shown[module]

    def load(self, module: str, parameters: Mapping[str, str] | None = None) -> None:
        """Load ``module``; PolicyError with modprobe's own words where that fails."""
        settings = ["%s=%s" % item for item in sorted((parameters or {}).items())]
        self._change("load", module, ["--", module, *settings])

    def unload(self, module: str) -> None:
        """Unload ``module``; PolicyError with modprobe's own words where that fails."""
        self._change("unload", module, ["--remove", "--", module])

    def _change(self, verb: str, module: str, arguments: Sequence[str]) -> None:
        code, output = self._run(arguments)
        self._shown.clear()
        if code:
            words = " ".join(_text.words(output)).rstrip(".") or "modprobe ended with %d" % code
            raise PolicyError(
                "Cannot %s the kernel module %s: %s. %s" % (verb, module, words, _advice(words))
            )

    def _run(self, arguments: Sequence[str], program: str = "modprobe") -> tuple[int, str]:
        path = _path(program)
        if path is None:
            return 127, "%s is not installed" % program
        process = _start([path, *arguments])
        try:
            output, _unused = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            # Not waited for: a module whose initialisation hangs does not end when killed.
            process.kill()
            raise PolicyError(
                "%s %s did not end within %g s; process %d is still waiting for the kernel. Read "
                "'dmesg', and reboot if it does not end"
                % (program, " ".join(arguments), self._timeout, process.pid)
            ) from None
        return process.returncode, output.decode("utf-8", "replace")


def _aliases_by_module(output: str) -> dict[str, list[str]]:
    """Return the modalias patterns of each module in the output of ``modinfo --null``.

    The name of one that is built in comes first; of another, the path (modinfo_do in kmod's
    tools/modinfo.c). Messages, which end with no NUL, can be before either.
    """
    patterns: dict[str, list[str]] = {}
    name = ""
    for field in output.split("\0"):
        if "=" in field.partition(":")[0]:
            key, _equals, value = field.partition("=")
            if key == "alias":
                patterns.setdefault(name, []).append(value)
            continue
        label, _colon, text = field.rpartition("\n")[2].partition(":")
        if label == "name":
            name = canonical_name(text.strip())
        elif label == "filename":
            if text.strip() != _BUILT_IN:
                name = module_of(text)
            patterns[name] = []
    return patterns


def _advice(words: str) -> str:
    """Return a remedy for what modprobe says in the C locale."""
    return next((advice for said, advice in _ADVICE.items() if said in words), "See 'dmesg'")


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": ":".join(_FOLDERS), "LC_ALL": "C"},
        )
    except OSError as error:
        raise PolicyError("Cannot start %s: %s" % (command[0], error.strerror)) from None


def _path(program: str) -> str | None:
    candidates = [directory + "/" + program for directory in _FOLDERS]
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def _some_module() -> str | None:
    """Return the name of a module of the running kernel, or None if it has none."""
    dependencies_path = _MODULES + os.uname().release + "/modules.dep"
    # modprobe reads another file, so this one may be a FIFO, which nobody writes to.
    if not os.path.isfile(dependencies_path):
        return None
    try:
        with open(dependencies_path, "rb") as dependencies:
            path = os.fsdecode(dependencies.readline()).partition(":")[0]
    except OSError:
        return None
    return module_of(path) or None


def module_of(path: str) -> str:
    """Return the name of the module in a file: path_to_modname in kmod's shared/util.c."""
    return canonical_name(os.path.basename(path).partition(".")[0])


def canonical_name(module: str) -> str:
    """Return the module's name as the kernel has it."""
    return module.replace("-", "_")
