"""RestartAllContainers on real hosts."""

import pytest

from tests.integration.build import Json, Space, condition, container, is_ready, phase, pod, sidecar, status, with_data

pytestmark = pytest.mark.lab

RULES = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]
ENDS = "[ -e /data/again ] && exec sleep 3600; touch /data/again; exit 42"


def ruled(image: str, script: str, **fields: str) -> Json:
    return {**container(image, script, restartPolicy="Never", **fields), "restartPolicyRules": RULES}


def has_restarted(of: Json) -> bool:
    names = [each["name"] for kind in ("initContainers", "containers") for each in of["spec"].get(kind, ())]
    return all(status(of, name).get("restartCount") == 1 for name in names)


def test_exit_of_one_restarts_all_from_the_init_containers(space: Space) -> None:
    image = space.lab.image_busybox
    note = 'echo "$(date +%s) $0" >> /data/log'
    by_main = pod(
        "by-main",
        ruled(image, f"{note}; sleep 2; {ENDS}"),  # the others run by then
        container(image, f"{note}; exec sleep 3600", name="other"),
        initContainers=[container(image, note, name="init"), sidecar(image, f"{note}; exec sleep 3600")],
    )
    ends_once = ruled(image, ENDS.replace("exec sleep 3600", "exit 0"), name="init")
    by_init = pod("by-init", container(image), initContainers=[sidecar(image), ends_once])
    for of in (by_main, by_init):
        for each in (*of["spec"]["initContainers"], *of["spec"]["containers"]):
            each["command"].append(each["name"])  # $0
    space.create(with_data(by_main), with_data(by_init))
    pods = space.wait(lambda of: is_ready(of) and status(of)["restartCount"] == (of["metadata"]["name"] == "by-main"), timeout_s=60)
    main, init = pods["by-main"], pods["by-init"]
    assert has_restarted(main)
    assert [status(init, name)["restartCount"] for name in ("side", "init", "main")] == [1, 1, 0]
    assert (phase(main), condition(main, "AllContainersRestarting")["status"]) == ("Running", "False")
    ends = [status(main, name)["lastState"]["terminated"] for name in ("init", "side", "main", "other")]
    assert {(end["reason"], end["exitCode"]) for end in ends} == {("RestartingAllContainers", 137)}
    began = space.kubectl("exec", "by-main", "--container=main", "--", "cat", "/data/log").split()[1::2]
    assert [(each[:2], sorted(each[2:])) for each in (began[:4], began[4:])] == [(["init", "side"], ["main", "other"])] * 2
