"""Markdown that more than one page needs: tables, and the blocks of README that are filled by runs."""

import re
from collections.abc import Sequence

from helpers.command import BadInput


def pipe_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A table of cells that are Markdown already; numbers: all columns but the first align to the right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (head, rule, *rows))


def fill(readme: str, name: str, content: str) -> str:
    """Make what lies between `<!-- name -->` and `<!-- /name -->` anew. Raises BadInput if a mark is missing."""
    block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if not block.search(readme):
        raise BadInput(f"README.md has no block between <!-- {name} --> and <!-- /{name} --> to fill.")
    return block.sub(lambda match: f"{match[1]}{content}\n{match[2]}", readme, count=1)
