"""A mapping file names the columns of another system; the declared names stay, unless they were given away."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import ConfigurationError
from jobs.feeds.logs import LOGS
from jobs.feeds.mapping import declared_sources, load_mapping
from jobs.feeds.purchases import PURCHASES
from jobs.feeds.users import USERS


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    return tmp_path / "mapping.json"


@pytest.mark.parametrize(
    "text",
    [
        '{"actor.login": "user_id", "type": "action_type"}',
        '{"user_id": "actor.login", "action_type": "type"}',
        '\ufeff{"user_id": "actor.login", "action_type": "type"}',
    ],
)
def test_either_direction_is_understood(mapping: Path, text: str) -> None:
    mapping.write_text(text, encoding="utf-8")
    names = load_mapping(LOGS, mapping)
    assert names["user_id"] == ("actor.login", "user_id")
    assert names["action_type"] == ("type", "action_type")
    assert names["device"] == ("metadata.device",)


def test_a_field_may_have_several_sources_in_their_order(mapping: Path) -> None:
    mapping.write_text('{"customer": "customer_id", "client": "customer_id"}')
    assert load_mapping(PURCHASES, mapping)["customer_id"] == (
        "customer",
        "client",
        "CustomerID",
        "customer_id",
    )


def test_a_name_given_to_one_field_no_longer_means_another(mapping: Path) -> None:
    mapping.write_text('{"customer_id": "invoice_number", "buyer": "customer_id"}')
    names = load_mapping(PURCHASES, mapping)
    assert names["invoice_number"][0] == "customer_id"
    assert names["customer_id"] == ("buyer", "CustomerID")


def test_letter_case_matters_in_json_only(mapping: Path) -> None:
    mapping.write_text('{"EMAIL": "source_id", "mail": "email"}')
    names = load_mapping(USERS, mapping)
    assert (names["source_id"][0], names["email"]) == ("EMAIL", ("mail",))
    mapping.write_text('{"USER_ID": "action_type"}')
    assert load_mapping(LOGS, mapping)["user_id"] == ("user_id",)


def test_of_csv_blanks_around_a_name_do_not_matter_and_dots_lead_nowhere(mapping: Path) -> None:
    mapping.write_text('{"Item ": "detail", "\\u00a0Price..net": "unit_price", "": "stock_code"}')
    names = load_mapping(PURCHASES, mapping)
    assert names["detail"][0] == "Item"
    assert names["unit_price"][0] == "Price..net"
    # As pandas calls the column of its index.
    assert names["stock_code"][0] == ""
    mapping.write_text('{"Item": "detail", "Item ": "country"}')
    with pytest.raises(ConfigurationError, match="Item is given to two fields, detail and country"):
        load_mapping(PURCHASES, mapping)


def test_a_secret_does_not_become_a_field_that_is_none(mapping: Path) -> None:
    mapping.write_text('{"mail": "email", "pw_hash": "password"}')
    assert load_mapping(USERS, mapping)["password"] == ("pw_hash", "password")
    mapping.write_text('{"Password": "status"}')
    with pytest.raises(ConfigurationError, match="Password is a secret, status is not one"):
        load_mapping(USERS, mapping)


def test_fields_that_are_derived_are_not_filled_from_a_file(mapping: Path) -> None:
    mapping.write_text('{"id": "content_id"}')
    with pytest.raises(ConfigurationError, match="content_id: not a field of users"):
        load_mapping(USERS, mapping)


def test_an_empty_mapping_changes_nothing(mapping: Path) -> None:
    mapping.write_text("{}")
    assert load_mapping(LOGS, mapping) == declared_sources(LOGS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"user_id": ', "not JSON"),
        ("[]", "expected one object"),
        ('{"user_id": 5}', "expected one object"),
        ('{"user_id": ["a"]}', "expected one object"),
        ('{"login": "usr_id"}', "usr_id: not a field of logs; the fields are user_id, timestamp"),
        ('{"id": "user_id", "id": "device"}', "id stands there more than once"),
        ('{"user_id": "actor", "user_id": "login"}', "user_id stands there more than once"),
        ('{"user_id": "id", "device": "id"}', "id is given to two fields, user_id and device"),
        ('{".actor.login": "user_id"}', '".actor.login": a dot leads from one name to the next'),
        ('{"user_id": "actor..login"}', '"actor..login": a dot leads from one name to the next'),
        ('{"": "user_id"}', '"": a dot leads'),
        ("[" * 100_000, "not JSON"),
        ('{"login": "user_id", "device": "agent"}', "the field of logs stands first, in others last"),
    ],
)
def test_a_wrong_mapping_is_an_error_that_names_file_and_entry(
    mapping: Path, text: str, message: str
) -> None:
    mapping.write_text(text)
    with pytest.raises(ConfigurationError, match=r"mapping\.json") as raised:
        load_mapping(LOGS, mapping)
    assert message in str(raised.value)


def test_of_csv_a_name_in_two_spellings_is_one(mapping: Path) -> None:
    mapping.write_text('{"Number": "source_id", "NUMBER": "status"}')
    with pytest.raises(ConfigurationError, match="NUMBER is given to two fields, source_id and status"):
        load_mapping(USERS, mapping)
    mapping.write_text('{"Number": "source_id", "NUMBER": "source_id"}')
    assert load_mapping(USERS, mapping)["source_id"][:2] == ("Number", "NUMBER")


def test_a_folder_or_nothing_instead_of_a_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(ConfigurationError, match="not a file"):
            load_mapping(LOGS, path)


def test_bytes_that_are_not_utf_8(mapping: Path) -> None:
    mapping.write_bytes(b'{"\xfc": "user_id"}')
    with pytest.raises(ConfigurationError, match="not JSON"):
        load_mapping(LOGS, mapping)
