"""Which addresses belong to the public internet: by hand, and beside the standard library."""

import ipaddress
import random
import socket
from typing import Any

import pytest

from llava_video.errors import SourceError
from llava_video.video.hosts import refusal, resolve

KINDS = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "169.254.169.254": "link-local",  # a cloud's metadata
    "100.64.0.1": "carrier-internal",
    "100.100.100.200": "carrier-internal",  # another cloud's metadata
    "100.127.255.255": "carrier-internal",
    "168.63.129.16": "cloud-internal",
    "192.0.0.192": "reserved",  # a third one's
    "192.0.2.1": "reserved",
    "198.18.0.1": "reserved",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fc00::1": "private",
    "fd00:ec2::254": "private",
    "fec0::1": "private",
    "ff02::1": "multicast",
    "2001::1": "reserved",  # Teredo
    "2001:db8::1": "reserved",
    "3fff::1": "reserved",
    "100::1": "reserved",
    "4000::1": "reserved",
    # An IPv4 address inside an IPv6 one: mapped, compatible, translated, NAT64, 6to4.
    "::ffff:127.0.0.1": "loopback",
    "::ffff:169.254.169.254": "link-local",
    "::127.0.0.1": "reserved",
    "::ffff:0:10.0.0.1": "reserved",
    "64:ff9b::10.0.0.1": "private",
    "64:ff9b:1::10.0.0.1": "reserved",
    "2002:7f00:1::": "loopback",
    "2002:c0a8:101::1": "private",
}
PUBLIC = (
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
)


@pytest.mark.parametrize("address", KINDS)
def test_what_is_not_public(address: str) -> None:
    assert refusal(address) == KINDS[address]


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public(address: str) -> None:
    assert refusal(address) is None


def test_beside_the_standard_library() -> None:
    """Its own registry, over addresses drawn near the edges of every special network."""
    chance = random.Random(0)
    edges = [int(ipaddress.ip_address(a)) for a in (*KINDS, *PUBLIC) if ":" not in a]
    drawn = [chance.choice(edges) + chance.randint(-300, 300) for _ in range(2000)]
    drawn += [chance.getrandbits(32) for _ in range(2000)]
    # Newer Pythons let single addresses of 192.0.0.0/24 pass; the other two the library lacks.
    apart = [ipaddress.ip_network(n) for n in ("192.0.0.0/24", "168.63.129.16", "192.88.99.0/24")]
    num_refused = num_missed = 0
    for number in drawn:
        address = ipaddress.IPv4Address(max(0, min(number, 2**32 - 1)))
        if any(address in network for network in apart):
            continue
        is_public = address.is_global and not address.is_multicast
        assert (refusal(str(address)) is None) == is_public, address
        num_refused += not is_public
        num_missed += not is_public and not address.is_private
    assert num_refused > 500
    assert num_missed > 50  # the wrong rule: `is_private` alone lets CGNAT and multicast pass


def _answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[tuple[Any, ...]]:
    """Let every name have these addresses; return the calls that ask for them."""
    calls: list[tuple[Any, ...]] = []

    def getaddrinfo(*asked: Any, **_: Any) -> list[Any]:
        calls.append(asked)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, asked[1], *((0, 0) if ":" in address else ())),
            )
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return calls


def test_a_name_is_judged_by_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _answers(monkeypatch, "8.8.8.8", "2606:4700::1111")
    found = resolve("videos.example", 80, allow_private=False)
    assert [place[0] for *_, place in found] == ["8.8.8.8", "2606:4700::1111"]
    assert calls == [("videos.example", 80)]
    for mixed in (("8.8.8.8", "10.0.0.7"), ("10.0.0.7", "8.8.8.8"), ("8.8.8.8", "::1")):
        _answers(monkeypatch, *mixed)
        with pytest.raises(SourceError, match=r"videos\.example \(.*allow_private"):
            resolve("videos.example", 80, allow_private=False)
        assert len(resolve("videos.example", 80, allow_private=True)) == 2


def test_what_the_message_says(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, "192.168.1.7")
    with pytest.raises(SourceError) as caught:
        resolve("nas.example", 80, allow_private=False)
    assert caught.value.message == (
        "nas.example (192.168.1.7) is a private address, and not fetched from."
    )
    assert "allow_private=True" in caught.value.hint


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "::1", "localhost"]
)
def test_other_spellings_of_this_machine(host: str) -> None:
    """The system's own resolver reads them, no name server is asked."""
    try:
        socket.getaddrinfo(host, 80)
    except OSError:
        pytest.skip(f"{host!r} means nothing here")
    with pytest.raises(SourceError, match="loopback"):
        resolve(host, 80, allow_private=False)
