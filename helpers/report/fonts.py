"""The fonts of the PDF, and the characters that they lack.

The folder fonts/ adds Chinese, Japanese and Korean, and emoji to the fonts within typst. So the PDF is the same on
every machine. Only for characters that all of these lack are the fonts of the machine asked.
"""

import re
import unicodedata
from pathlib import Path

import typst

FOLDER = Path(__file__).with_name("fonts")
OURS = {"font_paths": [str(FOLDER)], "ignore_system_fonts": True}
ANY = {"font_paths": [str(FOLDER)], "ignore_system_fonts": False}


def choose(text):
    """How typst.compile is to look for fonts so that it can print a text, and what it then cannot: (options, str)."""
    if not (missing := lacking(text, OURS)):
        return OURS, ""
    still = lacking(missing, ANY)
    return (OURS, missing) if still == missing else (ANY, still)


def lacking(text, options):
    """The characters of a text that no font has, each once."""
    asked = sorted({char for char in text if ord(char) > 127 and unicodedata.category(char)[0] in "LNPS"})
    shown = " ".join(f"\\u{{{ord(char):x}}}" for char in asked)
    try:
        typst.compile(shown.encode(), pdf_standards="a-2b", **options)  # this standard wants every glyph
    except typst.TypstError as error:
        named = re.findall(r'the text `"(.+?)"` could not be displayed', error.diagnostic)
        return "".join(sorted({char for char in asked if char in "".join(named)}))
    return ""


def in_words(char):
    """A character that cannot be shown, by its number and name."""
    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()
