"""The fonts of the PDF, and the characters that they lack.

The folder fonts/ adds Chinese, Japanese and Korean, and emoji to the fonts within typst, and matplotlib that of the
figures, whose text is text in the PDF too. So the PDF is the same on every machine. Only for characters that all of
these lack are the fonts of the machine asked.
"""

import re
import shutil
import tempfile
import unicodedata
from functools import cache
from pathlib import Path

import matplotlib
import typst

FOLDER = Path(__file__).with_name("fonts")


@cache
def _of_figures():
    """A folder of the fonts that figures use: matplotlib's own also holds one that claims to have every character."""
    folder = tempfile.TemporaryDirectory(prefix="fonts-")
    for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        shutil.copy(Path(matplotlib.get_data_path(), "fonts", "ttf", name), folder.name)
    return folder  # which is removed with it


def ours(system=False):
    """Where typst.compile finds the fonts of the report, and those of the machine too if `system`."""
    return {"font_paths": [str(FOLDER), _of_figures().name], "ignore_system_fonts": not system}


def choose(text):
    """How typst.compile is to look for fonts so that it can print a text, and what it then cannot: (options, str)."""
    if not (missing := lacking(text, ours())):
        return ours(), ""
    still = lacking(missing, ours(system=True))
    return ours(system=still != missing), still


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
