"""Markdown that more than one page needs: tables, and the blocks of README that are filled by runs."""

import re
from collections.abc import Sequence


def pipe_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A table of cells that are Markdown already; numbers: all columns but the first align to the right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (head, rule, *rows))


def fill(text: str, name: str, content: str) -> str:
    """Make what lies between `<!-- name -->` and `<!-- /name -->` anew. Raises ValueError if a mark is missing."""
    block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if not block.search(text):
        raise ValueError(f"README.md has no block between <!-- {name} --> and <!-- /{name} --> to fill.")
    return block.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text, count=1)
