"""Which addresses can be located at all."""

from __future__ import annotations

import ipaddress


def public_address(text: str) -> str | None:
    """The address in its canonical form where it is one of the public internet, else None; see `reason`."""
    address = _parsed(text)
    return None if address is None or _reason(address) else str(address)


def reason(text: str) -> str:
    """Why a text is no public address: invalid, unspecified, loopback, link_local, multicast, private or reserved.

    Raises ValueError for a public address.
    """
    address = _parsed(text)
    found = "invalid" if address is None else _reason(address)
    if not found:
        raise ValueError(f"{text} is a public address")
    return found


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        # A zone (fe80::1%eth0) means something to one machine only.
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # ::ffff:192.0.2.1 is an IPv4 address in the clothes of an IPv6 one.
    return getattr(address, "ipv4_mapped", None) or address


def _reason(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    kinds = (
        ("unspecified", address.is_unspecified),
        ("loopback", address.is_loopback),
        ("link_local", address.is_link_local),
        ("multicast", address.is_multicast),
        ("reserved", address.is_reserved),
        # IPv6's first private addresses, deprecated and still in use, are global to Python.
        ("private", address.is_private or getattr(address, "is_site_local", False)),
        ("reserved", not address.is_global),
    )
    return next((kind for kind, holds in kinds if holds), "")
