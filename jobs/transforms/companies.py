"""The company behind an e-mail address: the owner of its domain, by the public suffix list.

The list (https://publicsuffix.org, Mozilla) comes with the package publicsuffixlist; nothing is asked on the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import pyarrow as pa
from publicsuffixlist import PublicSuffixList
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

# Names under which a provider gives mailboxes to anybody, in many countries: yahoo.co.jp, gmx.net, hotmail.fr …
FREE_NAMES = frozenset(
    """
    aol gmail gmx googlemail hotmail outlook protonmail rediffmail rocketmail tutanota yahoo yandex ymail
    """.split()
)
FREE_DOMAINS = frozenset(
    """
    126.com 139.com 163.com 189.cn aim.com alice.it att.net bellsouth.net bk.ru bluewin.ch bol.com.br btinternet.com
    comcast.net cox.net daum.net docomo.ne.jp earthlink.net email.com fastmail.com fastmail.fm foxmail.com free.fr
    freenet.de hanmail.net hey.com hushmail.com icloud.com inbox.ru interia.pl laposte.net libero.it list.ru
    live.ca live.co.uk live.com live.de live.fr live.nl mac.com mail.com mail.ru me.com msn.com naver.com nate.com
    o2.pl online.de orange.fr pm.me proton.me qq.com rambler.ru sbcglobal.net seznam.cz sfr.fr sina.com sky.com
    sohu.com t-online.de talktalk.net telenet.be tiscali.it tuta.com tuta.io ukr.net uol.com.br verizon.net
    virgilio.it virginmedia.com wanadoo.fr web.de wp.pl zoho.com
    """.split()
)
SCHEMA = "domain string, company string, company_domain string"


@cache
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=False)


def company_of(domain: str) -> tuple[str, str] | None:
    """A domain of e-mail addresses → (the company's name in it, its registrable domain), or None.

    `mail.acme.co.uk` → `acme`, `acme.co.uk`. None for free mail providers, public suffixes themselves, and domains
    under no known suffix. Names in other scripts come out as DNS has them (`xn--…`).
    """
    try:
        ascii_domain = domain.encode("idna").decode().lower()
    except UnicodeError:
        return None
    registrable = _public_suffixes().privatesuffix(ascii_domain)
    if registrable is None:
        return None
    name = registrable.partition(".")[0]
    return None if name in FREE_NAMES or registrable in FREE_DOMAINS else (name, registrable)


def with_company(people: DataFrame) -> DataFrame:
    """Rows with `email` string → the same with `company` and `company_domain` string, null where there is none.

    The list is asked once per domain that occurs, not once per row.
    """
    domain = F.substring_index("email", "@", -1)
    companies = people.select(domain.alias("domain")).distinct().mapInArrow(_companies, SCHEMA)
    # A domain cannot be null: a row without an address has none to join.
    return people.withColumn("domain", domain).join(companies, "domain", "left").drop("domain")


def _companies(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        domains = batch.column("domain").to_pylist()
        found = [(company_of(domain) if domain else None) or (None, None) for domain in domains]
        columns = [domains, [name for name, _ in found], [registrable for _, registrable in found]]
        yield pa.RecordBatch.from_arrays(
            [pa.array(column, pa.string()) for column in columns], ["domain", "company", "company_domain"]
        )
