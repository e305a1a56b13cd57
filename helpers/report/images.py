"""Images that the texts of a notebook refer to: files beside it, pasted ones (attachments), and addresses.

`embed` puts files beside a notebook into it, so that an executed notebook needs no other file. `take_out` gives the
images of a text names of their own, for pandoc.
"""

import base64
import binascii
import html
import re
from pathlib import Path
from urllib.parse import unquote

from . import ReportError
from .resolve import FENCED, INLINE_CODE

TYPES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}
SUFFIXES = {f".{extension}": mime for mime, extension in TYPES.items()} | {".jpeg": "image/jpeg"}

TITLE = r"""(?:\s+["'][^"'\n]*["'])?"""
IN_MARKDOWN = rf"""!\[(?P<alt>[^\]]*)\]\(\s*(?P<path><[^>]*>|(?:[^()\n"']|\([^()\n]*\))*?){TITLE}\s*\)"""
TAG = r"<img\b(?P<attributes>[^>]*)>"
IMAGE = re.compile(rf"(?P<code>{FENCED}|{INLINE_CODE})|{IN_MARKDOWN}|{TAG}", re.M | re.S | re.I)
ATTRIBUTE = re.compile(r"""\b(src|alt|width)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.I)


def replaced(text, new):
    """A Markdown or HTML text with each image outside code replaced by new(source, alt, width)."""

    def one(match):
        if match["code"]:
            return match[0]
        if match["path"] is not None:
            return new(unquote(match["path"].strip("<>")), match["alt"], "")
        given = {name.lower(): html.unescape("".join(value)) for name, *value in ATTRIBUTE.findall(match["attributes"])}
        return new(unquote(given.get("src", "")), given.get("alt", ""), given.get("width", ""))

    return IMAGE.sub(one, text)


def _tag(source, alt, width):
    size = f' width="{html.escape(width)}"' if width else ""
    return f'<img src="{html.escape(source)}" alt="{html.escape(alt)}"{size}>'


def _markdown(source, alt, width):
    return _tag(source, alt, width) if width else f"![{alt}]({source})"


# ---- Into the notebook


def embed(notebook, folder, name):
    """Put the image files of `folder` that a notebook refers to into it, in place.

    Raises ReportError naming the notebook for an image that is missing from a Markdown cell, or of no type that is
    shown. In an output it stays as it is.
    """
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            _attach(cell, folder, name)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for mime, form in (("text/markdown", _markdown), ("text/html", _tag)):
                if mime in data:
                    data[mime] = replaced(data[mime], lambda source, *rest, f=form: f(_inline(source, folder), *rest))


def _attach(cell, folder, name):
    attached = dict(cell.get("attachments", {}))

    def new(source, alt, width):
        key = source.removeprefix("attachment:")
        if key != source and key not in attached:
            raise ReportError(f"{name}: the pasted image {key} is missing from its cell: paste it again.")
        if key == source and not _is_address(source):
            key = re.sub(r"[^\w.-]", "-", source)
            try:
                attached[key] = _file(folder, source)
            except (OSError, KeyError):
                kinds = " ".join(sorted(SUFFIXES))
                raise ReportError(f"{name}: there is no image {source!r} beside the notebook ({kinds}).") from None
            source = f"attachment:{key}"
        return _markdown(source, alt, width)

    cell.source = replaced(cell.source, new)
    if attached:
        cell["attachments"] = attached


def _inline(source, folder):
    """The address of an image with all of it, as far as it is a file."""
    try:
        ((mime, content),) = {} if _is_address(source) else _file(folder, source).items()
    except (OSError, KeyError, ValueError):
        return source
    return f"data:{mime};base64,{content}"


def _is_address(source):
    return re.match(r"https?:|data:|//", source) is not None


def _file(folder, source):
    path = Path(folder) / source
    return {SUFFIXES[path.suffix.lower()]: base64.b64encode(path.read_bytes()).decode()}


# ---- Out of the notebook


def add(media, mime, content):
    """Keep an image, base64 or the text of an SVG, as a file for pandoc; returns its name."""
    name = f"image-{len(media) + 1}.{TYPES[mime]}"
    media[name] = content.encode() if content.lstrip().startswith("<") else base64.b64decode(content)
    return name


def take_out(text, attachments, media, form="markdown"):
    """A text whose images are files: they are added to `media` {name: bytes}.

    form: "markdown", or "html" for the HTML of an output. For an image that is not in the notebook a line says so.
    """

    def new(source, alt, width):
        try:
            if source.startswith("data:"):
                mime, content = source.removeprefix("data:").split(";base64,")
            else:
                ((mime, content),) = attachments[source.removeprefix("attachment:")].items()
            file = add(media, mime, content)
        except (KeyError, ValueError, binascii.Error):
            return _absent(source if len(source) < 200 else f"{source[:40]}...", form)
        if form == "html":
            return _tag(file, alt, width)
        return f"![{alt}]({file})" + (f'{{width="{width}"}}' if width else "")

    return replaced(text, new)


def _absent(source, form):
    if form == "html":
        return f"<em>Image not shown: {html.escape(source)}</em>"
    return f"*Image not shown: {f'<{source}>' if source.startswith('http') else f'`{source}`'}*"
