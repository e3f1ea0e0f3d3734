"""The company behind a domain of e-mail addresses."""

from __future__ import annotations

import pytest

from jobs.transforms.companies import company_of


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("acme.com", ("acme", "acme.com")),
        ("mail.eu.acme.com", ("acme", "acme.com")),
        # What is registered under co.uk, com.br or Tokyo's city domain is one label more.
        ("acme.co.uk", ("acme", "acme.co.uk")),
        ("mail.acme.com.br", ("acme", "acme.com.br")),
        ("post.acme.chiyoda.tokyo.jp", ("acme", "acme.chiyoda.tokyo.jp")),
        # Each customer of a host that is in the list is an owner of its own.
        ("ann.github.io", ("ann", "ann.github.io")),
        ("ACME.Com", ("acme", "acme.com")),
        ("bücher.de", ("xn--bcher-kva", "xn--bcher-kva.de")),
        # Free mail, also in countries that the list of domains does not name.
        ("gmail.com", None),
        ("googlemail.com", None),
        ("yahoo.co.jp", None),
        ("mail.yahoo.fr", None),
        ("web.de", None),
        ("icloud.com", None),
        # A company that only looks like one.
        ("gmail-tools.com", ("gmail-tools", "gmail-tools.com")),
        # Nobody's own: a public suffix, a name in a private network, an address, nonsense.
        ("co.uk", None),
        ("com", None),
        ("mail.localdomain", None),
        ("192.168.0.1", None),
        ("a" * 64 + ".com", None),
        ("acme..com", None),
        ("", None),
    ],
)
def test_company_of(domain: str, expected: tuple[str, str] | None) -> None:
    assert company_of(domain) == expected
