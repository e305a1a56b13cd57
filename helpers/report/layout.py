"""Where the figures and tables of the PDF stand: between paragraphs, and so that no page ends in a gap.

report.lua puts a comment before every block of the Typst text: `//: text`, `//: bound` for a block that belongs to the
one before it (an equation, a list, what follows a colon), or `//: float` for a figure or a table. A float that does not
fit on what is left of its page moves down, past as much text as fills this page.
"""

import re
from dataclasses import dataclass

MARK = re.compile(r"^//: (text|bound|float)\n", re.M)
TOP, BOTTOM = 1.5 * 72 / 2.54, 28.1 * 72 / 2.54  # the margins of template.typ, in points from the top of the page
GAP = 45  # points: as much may stay empty at the end of a page
# A spot is invisible. Over a page break it goes with the block after it; placed, it stays with the block before it.
SPOT = "#let spot(name) = context [#metadata((name, here().page(), here().position().y.pt())) <spot>]\n"


@dataclass
class Float:
    """A figure or table as Typst text, and how many texts stand before it."""

    text: str
    slot: int


def arrange(source, measure):
    """The Typst text with its floats where they leave no gap, in their order.

    measure: a function that returns the spots of a Typst text, as (name, page, points from the top).
    """
    head, *marked = MARK.split(source)
    texts: list[str] = []
    floats: list[Float] = []
    for kind, text in zip(marked[::2], marked[1::2], strict=True):
        if kind == "float":
            floats.append(Float(text, len(texts)))
        elif kind == "text" or not texts:
            texts.append(text)
        else:
            texts[-1] += text
    while _mend_first_gap(texts, floats, measure(SPOT + head + _body(texts, floats, _between_spots))):
        pass
    return head + _body(texts, floats, lambda name, text: text)


def _order(texts, floats):
    """What stands where: ("text", index) and ("float", index) in the order of the pages."""
    for slot in range(len(texts) + 1):
        yield from (("float", i) for i, each in enumerate(floats) if each.slot == slot)
        if slot < len(texts):
            yield "text", slot


def _body(texts, floats, written):
    blocks = {"text": texts, "float": [each.text for each in floats]}
    return "\n\n".join(written(f"{kind} {i}", blocks[kind][i]) for kind, i in _order(texts, floats))


def _between_spots(name, text):
    return f'#spot("{name}")\n\n{text}\n\n#place(spot("end of {name}"))'


def _mend_first_gap(texts, floats, spots):
    """Move the first float that leaves a gap, and with it those that it would overtake; whether there was one."""
    at = {name: (page, y) for name, page, y in spots}
    page, y = 1, TOP
    for kind, i in _order(texts, floats):
        gap = BOTTOM - y
        if kind == "float" and at[f"float {i}"][0] > page and gap > GAP and floats[i].slot < len(texts):
            slot = floats[i].slot
            while slot < len(texts) and gap > GAP:
                gap -= _height(at[f"text {slot}"], at[f"end of text {slot}"])
                slot += 1
            for each in floats[i:]:
                each.slot = max(each.slot, slot)
            return True
        page, y = at[f"end of {kind} {i}"]
    return False


def _height(start, end):
    (first, top), (last, bottom) = start, end
    return bottom - top + (last - first) * (BOTTOM - TOP)
