"""A host's name → the addresses that may be connected to.

A URL that a stranger hands over must not make this machine fetch from its own network: from a
router, a database, a cloud's metadata. So a name is resolved once, every address of it is judged,
and `connections.py` goes to the very address that was judged; a name that resolves differently a
moment later gains nothing. Knows no HTTP.
"""

import ipaddress
import socket
from typing import Any

from llava_video.errors import SourceError

# Source: IANA's registries of special-purpose IPv4 and IPv6 addresses, read in 2025.
_SPECIAL = tuple(
    (ipaddress.ip_network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-internal"),  # CGNAT; a cloud's metadata, too
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud-internal"),  # Azure's host, as its machines see it
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),  # Teredo among them
        ("2001:db8::/32", "reserved"),
        ("3fff::/20", "reserved"),
    )
)
# All of IPv6 that is handed out to networks; what lies outside is reserved or has a use of its own.
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
# IPv6 addresses that carry an IPv4 one, and the bits behind it: what is reached is the latter.
_CARRIERS = tuple(
    (ipaddress.ip_network(network), shift)
    for network, shift in (
        ("::ffff:0:0/96", 0),  # IPv4-mapped
        ("64:ff9b::/96", 0),  # NAT64
        ("2002::/16", 80),  # 6to4
    )
)


def refusal(address: str) -> str | None:
    """Say what kind of address it is when it does not belong to the public internet.

    >>> refusal("192.168.1.7"), refusal("::ffff:127.0.0.1"), refusal("8.8.8.8")
    ('private', 'loopback', None)

    Args:
        address: IPv4 or IPv6 in digits; a zone ("%eth0") may follow.

    Returns:
        One word for people, or None when it is public.
    """
    judged = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(judged, ipaddress.IPv6Address):
        for network, shift in _CARRIERS:
            if judged in network:
                judged = ipaddress.IPv4Address(int(judged) >> shift & 0xFFFFFFFF)
                break
    for network, kind in _SPECIAL:
        if judged.version == network.version and judged in network:
            return kind
    if judged.version == 6 and judged not in _GLOBAL_V6:
        return "reserved"
    return None


def resolve(host: str, port: int, *, allow_private: bool) -> list[Any]:
    """Return what `socket.getaddrinfo` finds, all of it judged.

    One address that is not public refuses the host: a name that has such an address belongs to a
    network of one's own, or wants to be taken for it, and which of its addresses answers first must
    not decide.

    Raises:
        SourceError: an address is not public. OSError: the name is not known.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if allow_private:
        return found
    for *_, place in found:
        address = str(place[0])
        kind = refusal(address)
        if kind:
            what = host if host == address else f"{host} ({address})"
            raise SourceError(
                f"{what} is a {kind} address, and not fetched from.",
                "download the file first, or, where you trust the address, allow_private=True.",
            )
    return found
