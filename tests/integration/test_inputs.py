"""What a container is given: environment, files, tokens; that what is missing is waited for, and that secrets stay secret."""

import json
import secrets
from copy import deepcopy
from typing import Any

import pytest

from tests.integration.build import Json, Space, container, has_ended, is_ready, phase, pod, status, uid32, waiting, with_data
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

MARKER = f"marker-{secrets.token_hex(8)}"


def config_map(name: str, data: dict[str, str], *, kind: str = "ConfigMap") -> Json:
    key = "data" if kind == "ConfigMap" else "stringData"
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, key: data}


def secret(name: str, data: dict[str, str]) -> Json:
    return config_map(name, data, kind="Secret")


def key_of(kind: str, name: str, key: str, **more: Any) -> Json:
    return {"valueFrom": {f"{kind}KeyRef": {"name": name, "key": key, **more}}}


def field(path: str) -> Json:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def resource(name: str, **more: Any) -> Json:
    return {"valueFrom": {"resourceFieldRef": {"resource": name, **more}}}


ENV: dict[str, Json] = {
    "PLAIN": {"value": "of the Pod"},
    "OVER": {"value": "over envFrom"},
    "JOINED": {"value": "$(PLAIN) and $(UNKNOWN) and $$(PLAIN)"},
    "FROM_MAP": key_of("configMap", "map", "one"),
    "FROM_SECRET": key_of("secret", "hidden", "word"),
    "NOT_THERE": key_of("configMap", "map", "nothing", optional=True),
    "NAME": field("metadata.name"),
    "NAMESPACE": field("metadata.namespace"),
    "UID_OF_POD": field("metadata.uid"),
    "LABEL": field("metadata.labels['tier']"),
    "NODE": field("spec.nodeName"),
    "ACCOUNT": field("spec.serviceAccountName"),
    "POD_IP": field("status.podIP"),
    "HOST_IP": field("status.hostIP"),
    "CPU": resource("requests.cpu", divisor="1m"),
    "MEMORY": resource("requests.memory", divisor="1Mi"),
}
ENV_FROM = [
    {"configMapRef": {"name": "all"}},
    {"prefix": "P_", "configMapRef": {"name": "map"}},
    {"secretRef": {"name": "absent", "optional": True}},
]
VOLUMES: list[Json] = [
    {"name": "map", "configMap": {"name": "map"}},
    {"name": "hidden", "secret": {"secretName": "hidden", "defaultMode": 0o400}},
    {"name": "items", "configMap": {"name": "map", "items": [{"key": "one", "path": "deep/er/file", "mode": 0o640}]}},
    {
        "name": "about",
        "downwardAPI": {
            "items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "requests.cpu", "divisor": "1m"}},
            ]
        },
    },
    {
        "name": "together",
        "projected": {
            "sources": [
                {"configMap": {"name": "map", "items": [{"key": "one", "path": "one"}]}},
                {"secret": {"name": "hidden", "items": [{"key": "word", "path": "word"}]}},
                {"serviceAccountToken": {"path": "token", "audience": "elsewhere", "expirationSeconds": 3600}},
            ]
        },
    },
    {"name": "optional", "secret": {"secretName": "absent", "optional": True}},
]
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def given(shared: Space) -> Json:
    """A Pod that is given all there is, running."""
    shared.create(
        config_map("all", {"OVER": "of envFrom", "ALSO": "of envFrom"}),
        config_map("map", {"one": "first", "two": "second\nof two lines\n"}),
        secret("hidden", {"word": MARKER}),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "next-door"},
            "spec": {"ports": [{"name": "http", "port": 81}]},
        },
    )
    mounts = [{"name": volume["name"], "mountPath": f"/given/{volume['name']}"} for volume in VOLUMES]
    main = container(
        shared.lab.image_busybox,
        "tr '\\0' '\\n' < /proc/self/environ; echo argument $(NAME); exec sleep 3600",
        env=[{"name": name, **value} for name, value in ENV.items()],
        envFrom=ENV_FROM,
        volumeMounts=mounts,
        resources={"requests": {"cpu": "250m", "memory": "32Mi"}},
    )
    of = with_data(pod("given", main, volumes=[dict(volume) for volume in VOLUMES]))
    of["metadata"]["labels"] = {"tier": "front", "app": "a"}
    # A Service's link is there for Pods that begin after vknix has heard of it.
    shared.run(pod("before", container(shared.lab.image_busybox, "exit 0")))
    shared.create(of)
    return shared.wait(is_ready, "given")["given"]


@pytest.fixture(scope="module")
def environment(given: Json, shared: Space) -> dict[str, str]:
    wait_for(lambda: "argument" in shared.logs("given"), "the Pod has shown its environment", timeout_s=10)
    return dict(line.split("=", 1) for line in shared.logs("given").splitlines() if "=" in line)


def test_environment_is_as_a_kubelet_makes_it(environment: dict[str, str], given: Json, shared: Space) -> None:
    expected = {
        "PLAIN": "of the Pod",
        "OVER": "over envFrom",
        "ALSO": "of envFrom",
        "P_one": "first",
        "JOINED": "of the Pod and $(UNKNOWN) and $(PLAIN)",
        "FROM_MAP": "first",
        "FROM_SECRET": MARKER,
        "NAME": "given",
        "NAMESPACE": shared.name,
        "UID_OF_POD": given["metadata"]["uid"],
        "LABEL": "front",
        "NODE": "vknix",
        "ACCOUNT": "default",
        "POD_IP": given["status"]["podIP"],
        "HOST_IP": given["status"]["hostIP"],
        "CPU": "250",
        "MEMORY": "32",
        "HOSTNAME": "given",
        "NEXT_DOOR_SERVICE_PORT_HTTP": "81",
        "KUBERNETES_SERVICE_PORT": "443",
    }
    assert {name: environment.get(name) for name in expected} == expected
    assert "NOT_THERE" not in environment


def test_services_are_linked(environment: dict[str, str], shared: Space) -> None:
    address = shared.kubectl("get", "service", "next-door", "--output=jsonpath={.spec.clusterIP}")
    assert environment["NEXT_DOOR_SERVICE_HOST"] == address
    assert environment["KUBERNETES_SERVICE_HOST"].startswith(shared.lab.layout.service_cidr.rsplit(".", 2)[0])


def test_arguments_are_expanded(given: Json, shared: Space) -> None:
    assert "argument given" in shared.logs("given").splitlines()


FILES = [
    ("map/one", "644", "first"),
    ("map/two", "644", "second\nof two lines\n"),
    ("hidden/word", "400", MARKER),
    ("items/deep/er/file", "640", "first"),
    ("about/labels", "644", 'app="a"\ntier="front"'),
    ("about/cpu", "644", "250"),
    ("together/one", "644", "first"),
    ("together/word", "644", MARKER),
]


@pytest.mark.parametrize(("path", "mode", "text"), FILES, ids=[path for path, _, _ in FILES])
def test_file_has_its_text_and_mode(given: Json, shared: Space, path: str, mode: str, text: str) -> None:
    file = f"/given/{path}"
    assert shared.exec("given", "sh", "-c", f"stat -Lc %a {file}; cat {file}") == f"{mode}\n{text}"


def test_optional_volume_that_is_missing_is_empty(given: Json, shared: Space) -> None:
    assert shared.exec("given", "ls", "/given/optional") == ""


def test_volumes_of_objects_are_read_only_and_empty_ones_are_not(given: Json, shared: Space) -> None:
    script = "echo x > /data/file && cat /data/file; echo x > /given/map/one || echo refused"
    assert shared.exec("given", "sh", "-c", f"({script}) 2>/dev/null").split() == ["x", "refused"]


def test_token_is_that_of_the_pods_account(given: Json, shared: Space) -> None:
    token = shared.exec("given", "cat", f"{TOKEN}/token")
    answer = json.loads(whoami(shared.lab, token))["status"]["userInfo"]
    assert answer["username"] == f"system:serviceaccount:{shared.name}:default"
    assert answer["extra"]["authentication.kubernetes.io/pod-uid"] == [given["metadata"]["uid"]]


def whoami(lab: Lab, token: str) -> str:
    """As the API server sees somebody who has nothing but this token."""
    config = json.loads(lab.kubectl("config", "view", "--raw", "--minify", "--output=json").stdout)
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    file = lab.layout.folder / "token.kubeconfig"
    file.write_text(json.dumps(config))
    try:
        return lab.kubectl(f"--kubeconfig={file}", "auth", "whoami", "--output=json").stdout
    finally:
        file.unlink()


def test_token_reaches_the_api_server_from_inside(given: Json, shared: Space) -> None:
    url = f"https://{shared.lab.address}:6443/api/v1/namespaces/{shared.name}/pods"
    script = f'wget -qO- --no-check-certificate --header "Authorization: Bearer $(cat {TOKEN}/token)" {url} 2>&1 | head -c 2000'
    # The account may not list Pods: a 403 says that it is known, where a 401 would say that it is not.
    assert "403" in shared.exec("given", "sh", "-c", script)


def test_account_files_are_complete(given: Json, shared: Space) -> None:
    assert shared.exec("given", "cat", f"{TOKEN}/namespace") == shared.name
    assert "BEGIN CERTIFICATE" in shared.exec("given", "cat", f"{TOKEN}/ca.crt")


def test_secrets_and_environment_are_seen_nowhere(given: Json, shared: Space) -> None:
    """Neither in argv, unit properties and journals of the hosts, nor in vknix's log, nor in Events."""
    lab = shared.lab
    shared.wait_event("given", "Started")
    everything = {
        f"{name} of {host.name}": host.run(command, check=False)
        for host in lab.hosts
        for name, command in {
            "argv": "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'",
            "units": "systemctl show 'vk*' '*.service'; systemctl cat 'vk*'",
            "journal": "journalctl --boot --no-pager",
            "run": "ls -R /run/vknix",
        }.items()
    }
    everything["vknix's log"] = lab.vknix.log()
    everything["Events"] = shared.kubectl("get", "events", "--output=json")
    assert [name for name, text in everything.items() if MARKER in text] == []
    assert any(uid32(given) in text for name, text in everything.items() if name.startswith("units")), "the search is a good one"


@pytest.fixture(scope="module")
def healed(shared: Space) -> tuple[dict[str, Json], dict[str, Json]]:
    """Pods that lack something, before it is made and after."""
    image = shared.lab.image_busybox
    shared.create(config_map("grows", {"old": "1"}))
    env = [{"name": "NEW", **key_of("configMap", "grows", "new")}]
    volume = {"name": "late", "secret": {"secretName": "late"}}
    mount = [{"name": "late", "mountPath": "/late"}]
    shared.create(
        pod("lacks-key", container(image, "echo $NEW", env=env), container(image, name="beside")),
        pod("lacks-object", container(image, "echo $NEW", env=[{"name": "NEW", **key_of("secret", "later", "new")}])),
        pod("lacks-volume", container(image, "cat /late/new", volumeMounts=mount), volumes=[volume]),
    )
    lacking = shared.wait(lambda of: waiting(of) == "CreateContainerConfigError", "lacks-key", "lacks-object")
    shared.wait_event("lacks-volume", "FailedMount")
    shared.kubectl("patch", "configmap", "grows", '--patch={"data":{"new":"2"}}')
    shared.create(secret("late", {"new": "2"}), secret("later", {"new": "2"}))
    shared.wait(lambda of: status(of).get("state", {}).get("terminated", {}).get("exitCode") == 0, "lacks-key", timeout_s=30)
    return lacking, shared.wait(has_ended, "lacks-object", "lacks-volume", timeout_s=30)


def test_missing_key_is_told_with_where_it_is_missing(healed: tuple[dict[str, Json], dict[str, Json]], shared: Space) -> None:
    message = status(healed[0]["lacks-key"])["state"]["waiting"]["message"]
    assert f"couldn't find key new in ConfigMap {shared.name}/grows" in message
    assert "spec.containers[0].env[0]" in message
    assert "couldn't find key new" in shared.wait_event("lacks-key", "Failed")


@pytest.mark.parametrize("name", ["lacks-key", "lacks-object", "lacks-volume"])
def test_what_was_missing_is_taken_once_it_is_there(
    healed: tuple[dict[str, Json], dict[str, Json]], shared: Space, name: str
) -> None:
    assert shared.logs(name, "--container=main").strip() == "2"


def test_missing_volume_is_told(healed: tuple[dict[str, Json], dict[str, Json]], shared: Space) -> None:
    assert 'secret "late" not found' in shared.wait_event("lacks-volume", "FailedMount")
    assert phase(healed[0]["lacks-volume"]) == "Pending"


def from_file(path: str, key: str, **more: Any) -> Json:
    return {"valueFrom": {"fileKeyRef": {"volumeName": "data", "path": path, "key": key, **more}}}


def test_variables_come_from_a_file_that_an_init_container_has_written(space: Space) -> None:
    image = space.lab.image_busybox
    write = "mkdir /data/in; printf \"# ours\\nONE='first'\\nTWO='two\\nlines' # why\\n\" > /data/in/env; ln -s /in/env /data/link"
    env = {
        "ONE": from_file("in/env", "ONE"),
        "TWO": from_file("link", "TWO"),
        "NONE": from_file("in/env", "NONE", optional=True),
        "JOINED": {"value": "<$(ONE)>"},
    }
    main = container(image, 'echo "$ONE $TWO $JOINED ${NONE-unset}"', env=[{"name": name, **of} for name, of in env.items()])
    lacks = container(image, env=[{"name": "X", **from_file("in/env", "ABSENT")}])
    out = container(image, env=[{"name": "X", **from_file("out", "root")}])
    in_memory: list[Json] = [{"name": "data", "emptyDir": {"medium": "Memory"}}]
    first = container(image, write, name="first")
    leads_out = container(image, "ln -s ../../../../../../etc/passwd /data/out", name="first")

    def of(name: str, last: Json, before: Json) -> Json:
        made = with_data(deepcopy(pod(name, last, initContainers=[before])))
        return made if name != "memory" else {**made, "spec": {**made["spec"], "volumes": in_memory}}

    space.create(of("disk", main, first), of("memory", main, first), of("lacks", lacks, first), of("out", out, leads_out))
    space.wait(has_ended, "disk", "memory")
    assert [space.logs(name, "--container=main") for name in ("disk", "memory")] == ["first two\nlines <first> unset\n"] * 2
    waits = space.wait(lambda each: waiting(each) == "CreateContainerConfigError", "lacks", "out")
    told = [status(waits[name])["state"]["waiting"]["message"] for name in ("lacks", "out")]
    assert 'environment variable key "ABSENT" not found in file "in/env"' in told[0]
    assert "couldn't parse env file: there is no such file" in told[1]
