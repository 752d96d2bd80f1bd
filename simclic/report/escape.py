"""Escape text from outside for LaTeX, Markdown and CSV. jinja2 escapes HTML itself."""

import re
import unicodedata
from typing import Any

from simclic.text import terminal_safe

GREEK = (
    "alpha", "beta", "gamma", "delta", "varepsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "pi",
    "rho", "sigma", "tau", "upsilon", "varphi", "chi", "psi", "omega",
    "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
)  # fmt: skip

# Characters that are commands to LaTeX or missing from its default fonts, as commands that OT1 and T1 have.
TEX_COMMANDS = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\`{}", "|": r"\textbar{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}", "]": "{]}", "*": "{*}",  # [ and * are read by a \\ before them
    "–": "--", "—": "---", "‘": r"\textquoteleft{}", "’": "'", "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}",
    "…": r"\ldots{}", "ı": r"{\i}", "ß": r"{\ss}", "æ": r"{\ae}", "Æ": r"{\AE}", "œ": r"{\oe}", "Œ": r"{\OE}", "ø": r"{\o}",
    "Ø": r"{\O}", "ł": r"{\l}", "Ł": r"{\L}", "§": r"\S{}", "\u200b": r"\allowbreak{}", "\u2060": "{}",
} | {
    c: f"${command}$" for c, command in {
        "±": r"\pm", "✓": r"\checkmark", "·": r"\cdot", "×": r"\times", "−": "-", "≥": r"\geq", "≤": r"\leq", "≠": r"\neq",
        "≈": r"\approx", "∞": r"\infty", "√": r"\surd", "→": r"\to", "«": r"\ll", "»": r"\gg", "°": r"^\circ", "²": "^2",
        "µ": r"\mu", **{c: f"\\{name}" for c, name in zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", GREEK, strict=True)},
    }.items()
}  # fmt: skip
ACCENTS = dict(zip("\u0300\u0301\u0302\u0303\u0308\u0304\u0307\u030a\u030b\u030c\u0306\u0327", "`'^~\"=.rHvuc", strict=True))

LONG_WORD = re.compile(r"\S{30,}")  # may need a line break inside
PIECES = re.compile(r".{1,23}[-/_.,=:|]|.{1,24}")
MARKDOWN_ESCAPES = {c: f"\\{c}" for c in "\\`*_[]"} | {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "&#124;",
    "~": "&#126;",
    "$": "&#36;",
}
BLOCK_START = re.compile(r"^(\d*)([#=]|[-+](?![\d.])|(?<=\d)[.)](?=\s|$))")  # of a heading, a list, a rule
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def escape_tex(value: Any) -> str:
    """Return text as one paragraph of ASCII for LaTeX, in which nothing is a command. Needs amssymb for ✓.

    A character that LaTeX lacks becomes its code, U+4E2D. Long words may be broken over lines.
    """
    text = unicodedata.normalize("NFC", _as_one_line(value))
    text = re.sub(r"(?<![^\s(])'(?=\S)", "‘", re.sub(r'(?<![^\s(])"(?=\S)', "“", text)).replace('"', "”")
    text = re.sub(r"(?<!\S)-(?=\d)", "−", text)
    text = LONG_WORD.sub(lambda word: "\u200b".join(PIECES.findall(word[0])), text)
    return "".join(_escape_tex_character(c) for c in re.sub(r"([-,'])(?=\1)", "\\1\u2060", text))  # else -- would be a dash


def _escape_tex_character(c: str) -> str:
    if c in TEX_COMMANDS or (c.isascii() and c.isprintable()):
        return TEX_COMMANDS.get(c, c)
    apart = unicodedata.normalize("NFD", c)
    if len(apart) == 2 and apart[0].isascii() and apart[1] in ACCENTS:
        letter = f"\\{apart[0]}" if apart[0] in "ij" else apart[0]  # without its dot
        return f"\\{ACCENTS[apart[1]]}{{{letter}}}"
    return rf"\texttt{{U+{ord(c):04X}}}\allowbreak{{}}"


def escape_markdown(value: Any) -> str:
    """Return text as one line of Markdown for a table cell or list item, without markup, HTML or links."""
    text = "".join(MARKDOWN_ESCAPES.get(c, c) for c in terminal_safe(_as_one_line(value)))
    text = re.sub(r"(?i):(?=//)|(?<=\bwww)\.", lambda c: f"&#{ord(c[0])};", text)
    return BLOCK_START.sub(lambda begin: f"{begin[1]}\\{begin[2]}", text)


def escape_csv(value: Any) -> str:
    """Return the cell of a CSV file. A formula gets a ' in front, so that no spreadsheet runs it; numbers stay numbers."""
    text = terminal_safe(value, keep="\n\r\t")
    runs = text[:1] in ("\t", "\r", "\n") or text.lstrip()[:1] in tuple("=+-@＝＋－＠")
    return f"'{text}" if runs and not NUMBER.fullmatch(text) else text


def _as_one_line(value: Any) -> str:
    return " ".join(str(value).split())
