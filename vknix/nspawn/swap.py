"""Volumes put in place on a host: the part of the script that follows the files. Pure."""

import shlex

from vknix.core.files import File as VolumeFile
from vknix.nspawn import files, paths
from vknix.nspawn.plan import PodPlan


def volumes(plan: PodPlan) -> str:
    """The swap of each volume, and the removal of what it showed before. An emptyDir is made once: its mode is its users' own."""
    empty = (f"{paths.var(plan.uid32)}/empty/{name}" for name in plan.empty)
    lines = [f"[ -d {each} ] || mkdir -m 777 {each}\n" for each in empty]
    lines += [_volume_script(f"{paths.run(plan.uid32)}/vol/{name}", of) for name, of in plan.volumes.items()]
    return "".join(lines)


def _volume_script(root: str, of: tuple[VolumeFile, ...]) -> str:
    """As the kubelet's atomic writer: names -> ..data -> a directory named by what is in it, which is changed as a whole."""
    new, stamp = f"{root}/..new-{files.digest(of)}", f"..v{files.digest(of)}"
    names = [shlex.quote(each) for each in sorted({file.path.split("/")[0] for file in of})]
    links = "".join(f'[ -L {root}/{name} ] || set -- "$@" ..data/{name}\n' for name in names)
    keep = "|".join(names) or "''"
    return (
        f"if [ -d {root}/{stamp} ]; then rm -rf {root}/..new-*; else mv -T {new} {root}/{stamp}; fi\n"
        f"if ! [ {root}/..data -ef {root}/{stamp} ]; then\n"
        f"ln -sfn {stamp} {root}/..data_tmp\nmv -T {root}/..data_tmp {root}/..data\nfi\n"
        f'set --\n{links}[ $# = 0 ] || ln -s "$@" {root}/\n'
        f'for old in {root}/..v*; do [ "$old" = {root}/{stamp} ] || rm -rf "$old"; done\n'
        f"for link in {root}/* {root}/.[!.]*; do\n"
        f'case ${{link##*/}} in {keep}) ;; *) [ ! -L "$link" ] || rm -f "$link";; esac\ndone\n'
    )
