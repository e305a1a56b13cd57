"""Cells of resolved notebooks as one Markdown document for pandoc.

Texts are fenced, each cell and each output for itself, and report.lua reads them one by one: what one of them leaves
open, such as a code fence, ends with it. Code is folded in HTML, and absent from the PDF unless its cell is tagged
`show-code`. What a cell prints stands with its code, in the PDF in a few lines; all of it with `show-output`.
"""

import ast
import re
import textwrap
from html import escape

from . import explorer, images

PRINTED_LINES, PRINTED_WIDTH = 8, 100  # of what a cell prints, in the PDF: at most; characters that fit on its page
OBJECT = re.compile(r"<\S+ object>")  # what IPython prints of an object that shows itself otherwise
ELSEWHERE = re.compile(r"""<(iframe|video|audio|embed|object)\b[^>]*?\b(?:src|data)=["']?([^"'\s>]+)[^>]*>""", re.I)
HTML_TABLE = re.compile(r"^(<table\b.*?</table>)", re.M | re.S | re.I)


def as_markdown(notebook, html):
    """The notebook for one of the two formats, and its images: (str, {file name: bytes})."""
    blocks: list[str] = []
    media: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            blocks += _texts(cell.source, media, cell.get("attachments", {}))
        elif cell.cell_type == "code":
            blocks += _code_cell(cell, html, media)
        else:  # raw, meant for another program
            blocks.append(_fence(cell.source, "output"))
    return "\n\n".join(blocks) + "\n", media


def _texts(source, media, attachments=None):
    """The fences of a Markdown text; its HTML tables have their own, since Markdown takes them to pieces."""
    for part in HTML_TABLE.split(source):
        form = "html" if HTML_TABLE.match(part) else "markdown"
        if part.strip():
            yield _fence(images.take_out(part, attachments or {}, media, form), f"{form}-text")


def _code_cell(cell, html, media):
    tags = cell.metadata.get("tags", [])
    printed: list[str] = []
    shown: list[str] = []
    for output in cell.outputs:
        if output.output_type == "stream" and "show-output" not in tags:
            printed.append(_fence(output.text if html else shortened(output.text), "output"))
        else:
            shown += _output(output, cell.metadata.get("report", {}), media)
    code = [_fence(cell.source, "python")] if cell.source.strip() and "remove-input" not in tags else []
    if not html:
        return (code if "show-code" in tags else []) + printed + shown
    if code or printed:
        opened = " open" if "show-code" in tags else ""
        title = escape(_title(cell)) if code else "Printed text"
        code = [f'<details class="code"{opened}><summary>{title}</summary>', *code, *printed, "</details>"]
    return code + shown


def _title(cell):
    """What a fold of code holds: "Code of Figure 3", else the names that the code sets."""
    texts = (output.get("data", {}).get("text/markdown", "") for output in cell.outputs)
    captions = [found[1] for text in texts if (found := re.match(r"\*\*([^*]+ S?\d+)\.\*\*", text))]
    if captions:
        return f"Code of {captions[0]}"
    try:
        lines = ast.parse(cell.source).body
    except SyntaxError:  # a magic of IPython
        lines = []
    targets = [target for line in lines if isinstance(line, ast.Assign) for target in line.targets]
    nodes = [node for target in targets for node in ast.walk(target)]
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return f"Code: {', '.join(dict.fromkeys(names))}" if names else "Code"


def shortened(text):
    """The first and the last lines of a printed text, and between them how many are left out."""
    lines = [part for line in text.rstrip().splitlines() for part in textwrap.wrap(line, PRINTED_WIDTH) or [""]]
    if len(lines) <= PRINTED_LINES:
        return "\n".join(lines)
    left_out = len(lines) - PRINTED_LINES + 1
    return "\n".join([*lines[: PRINTED_LINES - 3], f"[... {left_out:,} more lines are in report.html]", *lines[-2:]])


def _output(output, look, media):
    """The richest representation of one output that a page can show, as Markdown blocks."""
    if output.output_type == "stream":
        return [_fence(output.text, "output")]
    if output.output_type == "error":
        return [_fence(f"{output.ename}: {output.evalue}", "output")]
    data = output.data
    if explorer.MIME in data:
        return [f"```{{=html}}\n{explorer.static(data[explorer.MIME])}\n```"]
    for mime in images.TYPES:
        if mime in data:
            width = look.get("width") or output.get("metadata", {}).get(mime, {}).get("width", "")
            size = f'{{width="{width}"}}' if width else ""
            alt = re.sub(r"([^\w\s])", r"\\\1", look.get("alt", ""))
            return [_fence(f"![{alt}]({images.add(media, mime, data[mime])}){size}", "markdown-text")]
    if "text/markdown" in data:
        return list(_texts(data["text/markdown"], media))
    if "text/html" in data:
        page = ELSEWHERE.sub(r'<p><em>Not shown: <a href="\2">\2</a></em></p>', data["text/html"])
        return [_fence(images.take_out(page, {}, media, "html"), "html-text")]
    if "text/latex" in data:
        latex = re.sub(r"^\$\\displaystyle (.*)\$$", r"$$\1$$", data["text/latex"], flags=re.S)
        return [_fence(latex, "markdown-text")]
    plain, others = data.get("text/plain", ""), ", ".join(sorted(data.keys() - {"text/plain"}))
    if others and (not plain or OBJECT.fullmatch(plain)):
        return [_fence(f"*An output of the type {others}, which only JupyterLab shows.*", "markdown-text")]
    return [_fence(plain, "output")]


def _fence(text, kind):
    ticks = max((len(run) for run in re.findall("`{3,}", text)), default=2) + 1
    return f"{'`' * ticks} {{.{kind}}}\n{text.rstrip()}\n{'`' * ticks}"
