"""The tables of the programs: what a terminal of limited width shows, and which columns are numbers."""

from rich.console import Console

from experiments.cli.tables import Rows, as_terminal, figure_columns, ratio, signed

WIDE: Rows = [("method", *(f"strategy {i}" for i in range(9))), ("SGD", *9 * ("1.25",)), ("SAM", *9 * ("1.50",))]


def printed(rows: Rows, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(as_terminal(rows, console.width))
    return [line.strip() for line in capture.get().splitlines() if line.strip()]


def test_columns_become_rows_if_a_table_is_too_wide_for_the_terminal() -> None:
    heading, _, *rows = printed(WIDE, 40)
    assert heading.split() == ["method", "SGD", "SAM"]
    assert [row.split() for row in rows] == [["strategy", str(i), "1.25", "1.50"] for i in range(9)]


def test_a_table_that_fits_keeps_its_columns() -> None:
    assert len(printed(WIDE, 140)) == 4  # the heading, a rule, and two rows


def test_a_tall_table_is_not_turned_even_if_it_is_too_wide() -> None:
    tall: Rows = [("method", "a long heading of the only column"), *((f"method {i}", "1.25") for i in range(9))]
    assert len(printed(tall, 30)) >= 11


def test_a_column_of_dashes_is_no_column_of_numbers() -> None:
    assert figure_columns([("a", "b", "c"), ("1.5", "–", "–"), ("–", "x", "–")]) == [True, False, False]


def test_a_small_number_keeps_its_sign() -> None:
    numbers = (1.234, -0.5, 0.0031, -0.0004, 0.00001, -1e-17)
    assert [signed(number) for number in numbers] == ["+1.23", "−0.50", "+0.0031", "−0.0004", "+0.00", "+0.00"]


def test_a_ratio_is_one_only_if_it_is_one() -> None:
    numbers = (0.5, 1.2345, 1.0042, 0.99951, 1.0, 1.0000001)
    assert [ratio(number) for number in numbers] == ["0.500", "1.23", "1.0042", "0.99951", "1.00", "1.00"]
