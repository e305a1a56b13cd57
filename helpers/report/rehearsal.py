"""The report of notebooks that have not run: what would stop it after they have, stops it now."""

import ast
import re
import warnings

from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_output

from . import ReportError, bibliography, execute, fonts, images, publish, render
from .resolve import cell_options, resolve

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
STAND_INS = {"fig": {"image/png": PIXEL}, "tbl": {"text/markdown": "| a |\n|---|\n| b |"}}
# In the texts of code, as Markdown of their own; what an f-string fills in is \0 here, and goes on with no name.
REFERENCES = re.compile(r"@(?:fig|tbl|eq|sec)-[\w-]*\w(?![\w\0-])|\[@[^\[\]\0]+\]")
LABELS = re.compile(r"\{#((eq|sec|tbl)-[\w-]+)\}")
DEFINITIONS = {"eq": "$$ a $$ {{#{}}}", "sec": "# A {{#{}}}", "tbl": "| a |\n|---|\n| b |\n\n: A {{#{}}}"}


def rehearse(sources):
    """Make a PDF of notebook sources, with stand-ins for their figures and tables.

    Raises ReportError naming the notebook for a reference or citation that leads nowhere, a missing image, code that
    is no Python, and characters that no font has.
    """
    notebooks, written = {}, {}
    defined: set[str] = set()
    for source in sources:
        name, nb = source.stem, execute.read(source)
        images.embed(nb, source.parent, name)
        texts = []
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs = [new_output("display_data", data) for data in _stand_ins(cell, name, defined)]
            if cell.cell_type == "markdown" or "show-code" in cell.metadata.get("tags", []):
                texts.append(cell.source)
        notebooks[name], written[name] = nb, "\n".join(texts)
    front = publish.texts(publish.META)
    _refuse_characters({publish.META.name: "\n".join(front.values()), **written})
    resolved = resolve(notebooks, bibliography.load())
    pdf = render.PDFReport(meta=front)
    try:
        pdf.from_notebook_node(render.join(resolved.values()))
    except ReportError:
        for name, nb in resolved.items():
            try:
                pdf.from_notebook_node(render.join([nb]))
            except ReportError as error:
                raise ReportError(f"{name}: {error}") from None
        raise


def _stand_ins(cell, name, defined):
    """The data of outputs in place of those of a code cell: what it shows, and what its texts define and refer to.

    defined: the labels in texts so far. One may stand in two of them, of which the run shows one.
    """
    options, code = cell_options(cell.source)
    kind = options.get("label", "").split("-")[0]
    if kind in STAND_INS:
        yield STAND_INS[kind]
        if f"{kind}-cap" not in options:
            yield {"text/markdown": ": A computed caption."}
    for text in [] if "raises-exception" in cell.metadata.get("tags", []) else _literals(code, name):
        for label, of in LABELS.findall(text):
            if label not in defined:
                defined.add(label)
                yield {"text/markdown": DEFINITIONS[of].format(label)}
        for reference in REFERENCES.findall(text):
            yield {"text/markdown": reference}


def _literals(code, name):
    """The texts in the code of a cell, which may use magics."""
    try:
        with warnings.catch_warnings(action="ignore"):
            plain = TransformerManager().transform_cell(code)
            tree = compile(plain, name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        line = (error.text or code).strip().splitlines()[0]
        raise ReportError(f"{name}: a cell is no Python: {error.msg}, in: {line}") from None
    parts: set[int] = set()  # of f-strings, which come before them
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
            parts.update(map(id, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def _refuse_characters(texts):
    _, lacking = fonts.choose("\n".join(texts.values()))
    for char in lacking:
        name = next(name for name, text in texts.items() if char in text)
        raise ReportError(
            f"{name}: no font here can print {char} ({fonts.in_words(char)}) in the PDF: install one that can "
            "(Debian, Ubuntu: sudo apt install fonts-noto), or write it otherwise."
        )
