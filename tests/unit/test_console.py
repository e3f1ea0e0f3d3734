"""Plain text tables, and the command line's strictness."""

from __future__ import annotations

import csv
import io

import pytest

from jobs import cli, console
from jobs.console import table
from jobs.query_view import write_rows


def test_a_table_has_numbers_on_the_right_and_dashes_for_nothing() -> None:
    rows = [("logs", 20336, 1.5, True), ("reviews\nand more", None, 1234.0, None)]
    assert table(("feed", "rows", "seconds", "new"), rows).splitlines() == [
        "  feed                rows  seconds  new",
        "  ----------------  ------  -------  ---",
        "  logs              20,336      1.5  yes",
        "  reviews and more       -     1234    -",
    ]


def test_texts_do_not_move_the_cursor() -> None:
    rows = [("red\rcandle", "a\tb\r\nc"), ("\x1b[2Jgone\x7f", "é")]
    assert table(("detail", "more"), rows, indent="").splitlines()[2:] == [
        "red candle  a b  c",
        " [2Jgone    é",
    ]


def test_a_log_line_shows_control_characters_and_does_not_send_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.configure_logging()
    console.log.warning("refused: %s: %s", "raw/\x1b[2Ja\rb\x9b.csv", "é\tand\nmore")
    assert capsys.readouterr().err.partition(" ")[2] == (
        "refused: raw/\\x1b[2Ja\\x0db\\x9b.csv: é\tand\nmore\n"
    )


def test_keys_can_be_copied_from_a_table() -> None:
    rows = [(2755241899462698042, 123456, 123456)]
    assert table(("user_key", "id", "amount"), rows).splitlines()[-1] == (
        "  2755241899462698042  123456  123,456"
    )


def test_rows_come_back_from_csv_whatever_ends_lines_in_their_texts() -> None:
    header, rows = ["id", "detail"], [["1", "red\rcandle"], ["2", "\r\n"], ["3", 'a, "b"\n'], ["4", ""]]
    write_rows(out := io.StringIO(), "csv", header, rows)
    assert list(csv.reader(io.StringIO(out.getvalue(), newline=""))) == [header, *rows]
    assert out.getvalue().startswith("id,detail\n1,")


def test_a_table_without_rows_is_its_header_and_long_text_is_cut() -> None:
    assert table(("a", "b"), []).splitlines() == ["  a  b", "  -  -"]
    assert table(("text",), [("x" * 100,)]).splitlines()[-1] == "  " + "x" * 57 + "..."


def test_help_lists_every_command_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)
    assert err == ""


@pytest.mark.parametrize("arguments", [[], ["stag"], ["--verson"]])
def test_no_or_an_unknown_command_is_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: user-analytics COMMAND" in err
    assert all(repr(argument) in err for argument in arguments)


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: user-analytics {command} ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["stage"],
        ["stage", "log"],
        ["stage", "logs", "--max-rejected", "2"],
        ["stage", "logs", "--max-rejected", "few"],
        ["stage", "logs", "--map", "x.json"],
        ["stage", "logs", "reviews"],
        ["upload", "logs"],
        ["upload", "logs", "x", "--repl"],
        ["extract-purchases", "--table", "a.b.c"],
        ["extract-purchases", "--table", "a;b"],
        ["extract-purchases", "--date", "today"],
        ["extract-purchases", "--parts", "0"],
        ["run", "--feeds", "logs,revews"],
        ["run", "--feeds", ""],
        ["run", "--sample", "--data", "x"],
        ["run", "--samp"],
        ["run", "--feeds", "logs", "--mapping", "users=x.json"],
        ["run", "--mapping", "logs=x.json", "--mapping", "logs=y.json"],
    ],
)
def test_arguments_are_strict(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "events", "--limit", "0"], "'0' is not a whole number from 1 to 10,000,000"),
        (["query", "events", "--limit", "9" * 20], "is not a whole number from 1 to 10,000,000"),
        (["quarantine", "--sample", "few"], "'few' is not a whole number"),
        (["maintain", "--keep-days", "6"], "'6' is not a whole number from 7 to 36,500"),
        (["maintain", "--keep-days", "99999999999"], "from 7 to 36,500"),
        (["train-segments", "--seed", str(2**63)], "is not a whole number of 64 bits"),
        (["archive", "--older-than", "99999999999"], "from 0 to 36,500"),
        (["archive", "--older-than", "-1"], "from 0 to 36,500"),
        (["extract-purchases", "--parts", "65"], "from 1 to 64"),
        (["extract-purchases", "--date", "2024-13-01"], "'2024-13-01' is not a date such as 2024-03-01"),
        (["stage", "logs", "--max-rejected", "abc"], "abc is not between 0 and 1"),
        (["stage", "logs", "--max-rejected", "nan"], "nan is not between 0 and 1"),
    ],
)
def test_a_wrong_value_is_told_what_is_expected(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("into", ["../other", "a/../../b", "_hidden", "a/.b", "/absolute"])
def test_upload_stays_below_its_feed(
    into: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.log, "handlers", [])  # one that holds this test's standard error will be made
    assert cli.main(["upload", "logs", "x.json", "--into", into]) == 2
    assert "--into" in capsys.readouterr().err
