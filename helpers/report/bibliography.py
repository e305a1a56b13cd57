"""refs.bib as ready-made citations and reference entries (author-year style)."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pypandoc

REFS = Path(__file__).with_name("refs.bib")


@dataclass(frozen=True)
class Work:
    """One cited work: `authors` as cited ("He et al."), `year`, and the Markdown `entry` of the reference list."""

    authors: str
    year: int
    entry: str


@cache
def load(path=REFS):
    """Read a BibTeX file: {key: Work}."""
    items = json.loads(pypandoc.convert_file(str(path), "csljson", format="bibtex"))
    return {item["id"]: _work(item) for item in items}


def _work(item):
    families = [author.get("family") or author["literal"] for author in item["author"]]
    year = item["issued"]["date-parts"][0][0]
    cited = " and ".join(families) if len(families) <= 2 else f"{families[0]} et al."
    initials = [_initials(author.get("given", "")) for author in item["author"]]
    names = [", ".join(filter(None, name)) for name in zip(families, initials, strict=True)]
    if len(names) > 3:
        names = [f"{names[0]} et al."]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return Work(cited, year, f"{listed} ({year}). {_plain(item['title'])}. {_published(item)}")


def _published(item):
    where = f"*{item['container-title']}*" if "container-title" in item else item.get("publisher", "")
    volume = item.get("volume", "") + (f"({item['issue']})" if "issue" in item else "")
    parts = [where, volume, item.get("page", "").replace("-", "–")]
    link = f" [doi](https://doi.org/{item['DOI']})" if "DOI" in item else ""
    link = link or (f" [{item['URL'].removeprefix('https://')}]({item['URL']})" if "URL" in item else "")
    return ", ".join(part for part in parts if part) + "." + link


def _initials(given):
    return " ".join(f"{name[0]}." for name in given.split())


def _plain(title):
    return re.sub(r"<[^>]+>", "", title)  # csljson marks protected capitals with <span>
