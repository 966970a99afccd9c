from typing import Any

import pytest

from tests.unit.build import pod
from vknix.core import sysctls
from vknix.errors import Refused


@pytest.mark.parametrize(
    ("name", "unsafe", "fields", "why"),
    [
        pytest.param("kernel.shm_rmid_forced", (), {}, None, id="safe"),
        pytest.param("net/ipv4/tcp_syncookies", (), {}, None, id="with slashes"),
        pytest.param("kernel.msgmax", (), {}, "not allowlisted", id="unsafe"),
        pytest.param("kernel.msgmax", ("kernel.msg*",), {}, None, id="allowed by a pattern"),
        pytest.param("net.core.somaxconn", ("net.core.somaxconn",), {}, None, id="allowed by name"),
        pytest.param("vm.swappiness", ("vm.*",), {}, "not allowlisted", id="of the host, whatever is allowed"),
        pytest.param("net.ipv4.tcp_syncookies", (), {"hostNetwork": True}, "host net", id="the host's network"),
        pytest.param("kernel.shm_rmid_forced", (), {"hostIPC": True}, "host ipc", id="the host's IPC"),
        pytest.param("net.ipv4...tcp_syncookies", ("net.*",), {}, "not allowlisted", id="dots"),
    ],
)
def test_which_settings_a_pod_may_have(name: str, unsafe: tuple[str, ...], fields: dict[str, Any], why: str | None) -> None:
    of = pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **fields)
    if why is None:
        sysctls.check(of, unsafe)
        return
    with pytest.raises(Refused, match=why) as caught:
        sysctls.check(of, unsafe)
    assert caught.value.reason == "SysctlForbidden"


def test_names_with_slashes_are_read_the_other_way_round() -> None:
    of = pod(securityContext={"sysctls": [{"name": "net/ipv4/conf/eth0.1/forwarding", "value": "1"}]})
    (asked,) = sysctls.asked(of)
    assert sysctls.name(asked) == "net.ipv4.conf.eth0/1.forwarding"
    assert sysctls.file(sysctls.name(asked)) == "/proc/sys/net/ipv4/conf/eth0.1/forwarding"


@pytest.mark.parametrize(
    ("pattern", "holds"), [("net.*", True), ("kernel.shm*", True), ("kernel.sem", True), ("kernel.*", False), ("*", False)]
)
def test_what_is_a_pods_own(pattern: str, holds: bool) -> None:
    assert sysctls.is_namespaced(pattern) is holds
