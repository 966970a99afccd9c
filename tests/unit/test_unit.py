"""vknix.nspawn.unit: files and scripts, run for real below a directory that stands for the root of a host."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.build import ROOT, SETTINGS, UID32, container, parses, plan, pod
from vknix.core.fetched import Fetched, ObjectKey
from vknix.nspawn import files, paths, tree, unit
from vknix.nspawn.plan import PodPlan
from vknix.nspawn.tree import Dir, Entry, File, Link

EMPTY = [{"name": "v", "emptyDir": {}}]
CONFIG = [{"name": "c", "configMap": {"name": "c"}}]


def configured(data: dict[str, bytes], **spec: Any) -> PodPlan:
    return plan(pod(volumes=CONFIG, **spec), Fetched({ObjectKey("ConfigMap", "c"): data}))


class Host:
    """A directory as a host's root: Pods without a network or units, which need a real one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root / "run/vknix" / UID32
        self.var = root / "var/lib/vknix" / UID32
        (root / "run/vknix").mkdir(parents=True)
        (root / "run/vknix/epoch").write_text("7\n")

    def sync(self, of: PodPlan, lost: dict[str, int] | None = None, epoch: int = 7) -> int:
        of = replace(of, addresses=())
        script = unit.sync(of, {}, lost or {}, replace(SETTINGS, epoch=epoch))
        entries = files.files(of, self.local(script), "n")
        subprocess.run(["tar", "-xpf", "-", "-C", self.root], input=tree.pack(entries), check=True)
        return subprocess.run(["sh", self.run / "sync-n"], check=False).returncode

    def start(self, of: PodPlan, attempt: int) -> tuple[list[str], bool]:
        """What the script said of containers, and whether it asked systemd for anything."""
        of, asked = replace(of, addresses=()), self.root / "asked"
        (self.root / "bin").mkdir(exist_ok=True)
        (self.root / "bin/systemd-run").write_text(f"#!/bin/sh\ntouch {asked}\n")
        (self.root / "bin/systemd-run").chmod(0o755)
        script = unit.sync(of, {"main": attempt}, {}, SETTINGS)
        script = self.local(script).replace(f"PATH={paths.SEARCH}", f"PATH={self.root}/bin:{paths.SEARCH}", 1)
        subprocess.run(["tar", "-xpf", "-", "-C", self.root], input=tree.pack(files.files(of, script, "n")), check=True)
        (self.run / "net").write_text("1\n")
        done = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)
        return done.stdout.splitlines()[:-1], asked.exists()

    def local(self, script: str) -> str:
        for path in ("/run/vknix", "/var/lib/vknix", "/run/systemd"):
            script = script.replace(path, f"{self.root}{path}")
        return script

    def volume(self) -> dict[str, bytes]:
        """What a container sees, by the links."""
        return {file.name: file.read_bytes() for file in (self.run / "vol/c").iterdir() if not file.name.startswith("..")}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def all_entries(of: PodPlan) -> list[Entry]:
    return files.files(of, "", "0")


def test_every_script_is_one() -> None:
    of = configured({"a'b": b""}, restart="Never")
    both = plan(pod(container("a"), container("b"), volumes=EMPTY))
    names = tuple(machine.container for machine in both.machines)
    for script in (
        unit.sync(of, {"main": 4}, {"main": 3}, SETTINGS),
        unit.sync(both, dict.fromkeys(names, 0), {}, SETTINGS),
        unit.sync(both, {}, {}, SETTINGS),
        unit.prepare(both, SETTINGS),
        unit.stop(UID32, names, [("a", 3)], kill=True, gently=False, epoch=7),
        unit.stop(UID32, names, (), kill=False, gently=True, epoch=7),
        unit.clean(UID32, names, 7, "nft"),
    ):
        parses(script)


def test_what_is_stopped_to_start_again_is_written_down(host: Host) -> None:
    assert host.sync(plan(pod())) == 0
    script = unit.stop(UID32, ("main", "gone"), [("main", 2), ("gone", 0)], kill=False, gently=False, epoch=7)
    for _ in range(2):
        subprocess.run(["sh", "-c", host.local(script)], check=True, capture_output=True)
    assert (host.var / "c/main/again").read_text().split() == ["2", "2"]


@pytest.mark.parametrize(
    ("ends", "attempt", "said"),
    [(0, 0, []), (1, 1, []), (1, 2, []), (1, 0, ["ahead main"]), (3, 1, ["ahead main"])],
)
def test_attempt_that_has_ended_is_not_begun_again(host: Host, ends: int, attempt: int, said: list[str]) -> None:
    of = plan(pod())
    host.sync(of)
    (host.var / "c/main").mkdir(parents=True, exist_ok=True)
    (host.var / "c/main/facts").write_text("{}\n" * ends)
    assert host.start(of, attempt) == (said, not said)


def test_a_file_that_is_mounted_is_another_only_where_it_is_to_be(host: Host) -> None:
    """A container that begins meanwhile may be mounting it: the kernel moves no mount of a file whose name has gone."""
    of = plan(pod())
    host.sync(of)
    made = {name: (host.run / name).stat().st_ino for name in ("hosts", "resolv.conf")}
    host.sync(of)
    assert made == {name: (host.run / name).stat().st_ino for name in made}
    assert host.sync(replace(of, hosts=b"other\n")) == 0
    assert (host.run / "hosts").read_bytes() == b"other\n"
    assert (host.run / "resolv.conf").stat().st_ino == made["resolv.conf"]


def test_what_a_killed_nspawn_leaves_is_cleaned(host: Host) -> None:
    root, nspawn, machine = host.var / "c/main/root", host.root / "run/systemd/nspawn", paths.machine(UID32, "main")
    for folder in (
        root,
        nspawn / "unix-export" / machine,
        nspawn / "propagate" / machine,
        nspawn / "propagate/other",
        nspawn / "locks",
    ):
        folder.mkdir(parents=True)
    there = root.stat()
    (nspawn / f"locks/inode-{there.st_dev}:{there.st_ino}").touch()
    subprocess.run(["sh"], input=host.local(unit.clean(UID32, ("main", "never-began"), 7, "nft")).encode(), check=True)
    assert [str(path.relative_to(nspawn)) for path in nspawn.glob("*/*")] == ["propagate/other"]
    assert not host.var.exists()


odd = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=25, deadline=None)
@given(odd, odd)
def test_odd_mount_paths_and_keys_break_no_script(one: str, other: str) -> None:
    path = "/x" + one.replace("..", "")
    items = [{"key": "k", "path": "y" + other.replace("..", "")}]
    of = plan(
        pod(
            container(volumeMounts=[{"name": "c", "mountPath": path}], workingDir=path, args=[one, other]),
            volumes=[{"name": "c", "configMap": {"name": "c", "items": items}}],
        ),
        Fetched({ObjectKey("ConfigMap", "c"): {"k": b""}}),
    )
    parses(unit.sync(of, {"main": 0}, {}, SETTINGS))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(["/x:y", "/a\nb", "/p$HOME", "/q'\"", "/r\\s", "/t,u", "/%n", "/-w", "/é *"]), unique=True, min_size=1)
)
def test_the_shell_hands_on_each_word_as_it_is(paths: list[str]) -> None:
    of = plan(pod(container(volumeMounts=[{"name": "v", "mountPath": path} for path in paths]), volumes=EMPTY))
    machine = of.machines[0]
    wanted = [*unit.systemd_run(of, machine, SETTINGS), *unit.exec_start(of, machine, SETTINGS)]
    script = "start() { shift 5; printf '%s\\0' \"$@\"; }\n" + unit._start_script(of, machine, 0, SETTINGS)
    done = subprocess.run(["dash"], input=script.encode(), capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == wanted


@pytest.mark.parametrize(
    ("path", "option"),
    [("/a:b", "/a\\:b"), ("/a\\b", "/a\\\\b"), ("/a\\:b", "/a\\\\\\:b"), ("/a,b", "/a,b"), ("/a b", "/a b")],
)
def test_a_mount_path_is_one_word_of_a_bind(path: str, option: str) -> None:
    of = plan(pod(container(volumeMounts=[{"name": "v", "mountPath": path}]), volumes=EMPTY))
    assert f"--bind=/var/lib/vknix/{UID32}/empty/v:{option}" in unit.nspawn(of, of.machines[0])


def test_secrets_are_in_files_of_mode_0600_and_nowhere_else() -> None:
    secret = {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    of = plan(pod(container(env=[secret])), Fetched({ObjectKey("Secret", "s"): {"k": b"hunter2"}}))
    assert "hunter2" not in unit.sync(of, {"main": 0}, {}, SETTINGS)
    modes = {entry.mode for entry in all_entries(of) if isinstance(entry, File) and b"hunter2" in entry.data}
    assert modes == {0o600}


def test_a_deposed_vknix_can_do_nothing(host: Host) -> None:
    assert host.sync(plan(pod(volumes=EMPTY)), epoch=6) == unit.DEPOSED
    assert not (host.var / "empty/v").exists()


def test_a_host_without_an_epoch_obeys_nobody(host: Host) -> None:
    (host.root / "run/vknix/epoch").unlink()
    assert host.sync(plan(pod())) == unit.DEPOSED


def test_a_volume_is_laid_out_as_the_atomic_writer_does(host: Host) -> None:
    data = {"a": b"1", ".env": b"2", "sp ace'": b"3"}
    assert host.sync(configured(data)) == 0
    root = host.run / "vol/c"
    assert host.volume() == data
    assert (root / "a").readlink() == Path("..data/a")
    assert (root / "..data").readlink().name.startswith("..v")


def test_a_changed_volume_is_swapped_as_a_whole(host: Host) -> None:
    host.sync(configured({"a": b"1", ".gone": b"", "gone": b""}))
    before = (host.run / "vol/c/..data").readlink()
    assert host.sync(configured({"a": b"2", "new": b""})) == 0
    assert host.volume() == {"a": b"2", "new": b""}
    left = {entry.name for entry in (host.run / "vol/c").iterdir()}
    assert left == {"a", "new", "..data", (host.run / "vol/c/..data").readlink().name}
    assert before.name not in left


def test_an_unchanged_volume_is_left_alone(host: Host) -> None:
    host.sync(configured({"a": b"1"}))
    watched = [host.run / "vol/c/..data", host.run / "vol/c/a", host.run / "vol/c/..data/a"]
    before = [(file.lstat().st_ino, file.lstat().st_mtime_ns) for file in watched]
    assert host.sync(configured({"a": b"1"})) == 0
    assert [(file.lstat().st_ino, file.lstat().st_mtime_ns) for file in watched] == before


def test_what_a_torn_sync_left_does_not_hinder_the_next(host: Host) -> None:
    of = configured({"a": b"1"})
    host.sync(of)
    root = host.run / "vol/c"
    (root / "..data").unlink()
    (root / "..new-0").mkdir()
    assert host.sync(of) == 0
    assert host.volume() == {"a": b"1"}
    assert not (root / "..new-0").exists()


def test_a_volume_that_becomes_empty_shows_nothing(host: Host) -> None:
    host.sync(configured({"a": b"1"}))
    assert host.sync(configured({})) == 0
    assert host.volume() == {}


def test_an_empty_dir_is_everybodys_and_its_mode_is_kept(host: Host) -> None:
    of = plan(pod(volumes=EMPTY))
    assert host.sync(of) == 0
    directory = host.var / "empty/v"
    assert directory.stat().st_mode & 0o7777 == 0o777
    directory.chmod(0o700)
    (directory / "data").write_text("kept")
    assert host.sync(of) == 0
    assert directory.stat().st_mode & 0o7777 == 0o700
    assert (directory / "data").read_text() == "kept"


@pytest.mark.parametrize(
    ("facts", "attempt", "lines"),
    [
        ("", 0, 1),
        ('{"attempt":0}\n', 0, 1),
        ('{"attempt":0}\n', 1, 2),
        ('{"attempt":0}\n{"atte', 2, 3),
        ('{"attempt":0}\n{"atte', 1, 2),
    ],
    ids=["first", "it said so itself", "second", "after a torn line", "the torn line is its own"],
)
def test_a_lost_attempt_is_written_down_once(host: Host, facts: str, attempt: int, lines: int) -> None:
    of = plan(pod())
    host.sync(of)
    file = host.var / "c/main/facts"
    file.write_text(facts)
    for _ in range(2):
        assert host.sync(of, {"main": attempt}) == 0
    made = file.read_text()
    assert made.splitlines()[: len(facts.splitlines())] == facts.splitlines()
    assert made.endswith("\n")
    assert len(made.splitlines()) == lines
    if lines > facts.count("\n") + ("atte" in facts):
        assert json.loads(made.splitlines()[-1])["result"] == "lost"


MOUNTED = [
    pytest.param({}, {"bin": f"{ROOT}/bin", "usr/bin": f"{ROOT}/bin"}, id="nothing"),
    pytest.param({"volumeMounts": [{"name": "v", "mountPath": "/bin/x"}]}, {"usr/bin": f"{ROOT}/bin"}, id="below /bin"),
    pytest.param(
        {"volumeMounts": [{"name": "v", "mountPath": "/usr"}]}, {"bin": f"{ROOT}/bin", "usr/bin": f"{ROOT}/bin"}, id="/usr"
    ),
    pytest.param({"volumeMounts": [{"name": "v", "mountPath": "/usr/bin"}]}, {"bin": f"{ROOT}/bin"}, id="/usr/bin"),
    pytest.param(
        {"volumeMounts": [{"name": "v", "mountPath": "/etc/passwd"}]}, {"bin": f"{ROOT}/bin", "usr/bin": f"{ROOT}/bin"}, id="file"
    ),
    pytest.param({"workingDir": "/bin/x"}, {"bin": f"{ROOT}/bin", "usr/bin": f"{ROOT}/bin"}, id="working in /bin"),
    pytest.param({"terminationMessagePath": "/bin/end"}, {"usr/bin": f"{ROOT}/bin"}, id="log in /bin"),
]


@pytest.mark.parametrize(("of_container", "links"), MOUNTED)
def test_a_skeleton_can_be_unpacked_again_and_never_through_a_link(
    host: Host, of_container: dict[str, Any], links: dict[str, str]
) -> None:
    of = plan(pod(container(**of_container), volumes=EMPTY))
    assert (host.sync(of), host.sync(of)) == (0, 0)
    skeleton = host.var / "c/main/skeleton"
    assert {str(file.relative_to(skeleton)): str(file.readlink()) for file in skeleton.rglob("*") if file.is_symlink()} == links
    made: set[str] = set()
    for entry in all_entries(of):
        assert not any(entry.path.startswith(link + "/") for link in made)
        if isinstance(entry, Link):
            made.add(entry.path)


@pytest.mark.parametrize("name", ["vol", "empty", "main"])
def test_a_mount_point_is_what_is_mounted_there(name: str) -> None:
    of = plan(
        pod(
            container(name, terminationMessagePath="/end", volumeMounts=[{"name": "hosts", "mountPath": "/h"}]),
            volumes=[{"name": "hosts", "emptyDir": {}}],
        )
    )
    kinds = {entry.path.partition("/skeleton")[2]: type(entry) for entry in all_entries(of)}
    assert (kinds["/end"], kinds["/h"], kinds["/etc/hosts"]) == (File, Dir, File)


def test_the_script_comes_last() -> None:
    assert files.files(plan(pod()), "x", "n")[-1].path == f"/run/vknix/{UID32}/sync-n"


def test_a_unit_is_what_was_measured_to_work() -> None:
    made = plan(pod(restart="OnFailure"))
    properties = dict(unit.properties(made, made.machines[0], SETTINGS))
    wanted = {
        "Type": "notify",
        "KillMode": "mixed",
        "OOMPolicy": "continue",
        "Restart": "on-failure",
        "StartLimitIntervalSec": "0",
        "CollectMode": "inactive-or-failed",
        "Delegate": "yes",
    }
    assert {name: properties[name] for name in wanted} == wanted
    assert "RemainAfterExit" not in properties
