"""The part of the contract that is about hosts, and where Pods go."""

from ipaddress import ip_network

from vknix.errors import Refused
from vknix.provider import Place
from vknix.testing.bench import FOREVER, Process, asking


async def hosts_say_what_they_have(of: Process) -> None:
    for facts in of.hosts.values():
        assert facts.boot_id
        assert facts.arch in ("amd64", "arm64")
        assert facts.cpu_milli > 0
        assert facts.pods > 0


async def each_host_has_its_own_piece_of_the_pod_cidrs(of: Process) -> None:
    pieces = of.provider.configure(of.bench.pod_cidrs, {})
    assert pieces.keys() == of.hosts.keys()
    nets = [ip_network(piece) for piece in pieces.values()]
    assert not any(one.overlaps(other) for one in nets for other in nets if one is not other)
    assert of.provider.configure(of.bench.pod_cidrs, pieces) == pieces


async def places_are_kept_until_released_and_never_shared(of: Process) -> None:
    one, other = of.pod(*FOREVER), of.pod(*FOREVER)
    places = [of.provider.place(one, of.hosts), of.provider.place(other, of.hosts)]
    assert of.provider.place(one, of.hosts) == places[0]
    assert not set(places[0].addresses) & set(places[1].addresses)
    of.provider.release(one.uid)
    of.provider.release(other.uid)
    of.provider.release(other.uid)


async def adopted_place_is_taken(of: Process) -> None:
    old, new = of.pod(*FOREVER), of.pod(*FOREVER)
    free = of.provider.place(new, of.hosts)
    of.provider.release(new.uid)
    of.provider.adopt(old, free)
    of.provider.adopt(old, free)
    assert of.provider.place(old, of.hosts) == free
    assert not set(of.provider.place(new, of.hosts).addresses) & set(free.addresses)
    of.provider.release(old.uid)
    of.provider.release(new.uid)


async def pod_that_fits_no_host_is_refused_in_the_kubelets_word(of: Process) -> None:
    try:
        of.provider.place(of.pod(*FOREVER, cpu="100000"), of.hosts)
    except Refused as refusal:
        assert refusal.reason == "OutOfcpu"  # noqa: PT017  # no pytest here
    else:
        raise AssertionError("a Pod of 100000 CPUs was placed")


async def resize_that_no_host_could_grant_is_infeasible_and_one_that_others_hinder_deferred(of: Process) -> None:
    pod, other = of.pod(*FOREVER), of.pod(*FOREVER)
    place = of.provider.place(pod, of.hosts)
    whole = f"{of.hosts[place.host].cpu_milli}m"
    of.provider.adopt(other, Place(place.host, ()))
    of.provider.resize(asking(other, "1m"), Place(place.host, ()), of.hosts)
    for cpu, reason in (("100000", "Infeasible"), (whole, "Deferred")):
        try:
            of.provider.resize(asking(pod, cpu), place, of.hosts)
        except Refused as refusal:
            assert refusal.reason == reason  # noqa: PT017  # no pytest here
        else:
            raise AssertionError(f"{cpu} of cpu were granted")
    of.provider.release(other.uid)
    of.provider.resize(asking(pod, whole), place, of.hosts)
    of.provider.release(pod.uid)
