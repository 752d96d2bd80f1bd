"""Bytes, seconds, counts and names from outside, as a terminal shows them."""

from simclic import text


def test_bytes_and_seconds_are_in_the_unit_that_suits_them():
    assert [text.format_bytes(b) for b in (0, 999, 999_999, 3.1e9, 5e12)] == ["0 B", "999 B", "1 MB", "3.1 GB", "5 TB"]
    spans = (0.5, 41, 600, 4 * 3600, 5 * 86400, 3e9)
    assert [text.format_seconds(s) for s in spans] == ["0.5 s", "41 s", "10 min", "4 h", "5 days", "34,722 days"]
    assert [text.count_noun(n, "cell") for n in (0, 1, 1234)] == ["0 cells", "1 cell", "1,234 cells"]


def test_nothing_from_outside_reaches_the_terminal_as_a_command():
    hostile = "a\x1b[31m\u202eb\udcff\n"
    assert text.terminal_safe(hostile) == r"a\x1b[31m\u202eb\udcff\n"
    assert text.terminal_safe(hostile, keep="\n").endswith("\n")
    assert text.terminal_safe("größer 中") == "größer 中"


def test_a_difference_that_rounds_to_zero_has_no_sign():
    assert [text.format_signed(x) for x in (-0.004, 0.004, -0.0, -0.006, 1.2)] == ["0.00", "0.00", "0.00", "-0.01", "+1.20"]
    assert [text.format_signed(x, 1) for x in (-0.04, -0.06, float("nan"))] == ["0.0", "-0.1", "+nan"]
