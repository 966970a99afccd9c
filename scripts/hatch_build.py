"""Compiles `vknix/nspawn/tool/*.c` into `vknix/nspawn/vktool`, the static program for the hosts, when a wheel is built.

Editable installs get it too, in the source tree. Where there is no C compiler or no static libc the wheel is built without it, and
the build says so; vknix then tells how to get it when it first needs a host.
"""

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TOOL = "vknix/nspawn/vktool"
FLAGS = ("-O2", "-s", "-static", "-Wall", "-Wextra", "-Werror")


class CompileError(Exception):
    """This machine can't make the program; the text says why."""


def compile_tool(root: Path, out: Path) -> None:
    """Makes `out` from the sources under `root`. Raises CompileError."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise CompileError("no `cc` on the PATH")
    sources = sorted(str(source) for source in (root / "vknix/nspawn/tool").glob("*.c"))
    made = subprocess.run([compiler, *FLAGS, "-o", str(out), *sources], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise CompileError(made.stderr.strip())


class ToolHook(BuildHookInterface[Any]):
    """Hatch finds it by being the only hook in this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            compile_tool(Path(self.root), Path(self.root) / TOOL)
        except CompileError as error:
            self.app.display_warning(f"building without {TOOL}, which each host needs; install cc and a static libc: {error}")
            return
        build_data["artifacts"].append(TOOL)
        build_data["pure_python"] = False
        # Any Python will do: the program is for the hosts, and only the machine's architecture matters.
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
