"""Resolved notebooks -> one HTML file and one PDF.

nbconvert's preprocessors drop the cells that a format does not show; `markdown` writes what is left as one Markdown
document; pandoc, with report.lua, turns that into HTML, or into Typst, which typst compiles to PDF. Nothing here
gives numbers or looks anything up: see resolve.py.
"""

import base64
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pypandoc
import typst
from nbconvert.exporters import Exporter
from nbformat.v4 import new_markdown_cell, new_notebook
from traitlets import Dict
from traitlets.config import Config

from . import ReportError, layout
from .resolve import HTML_ONLY

HERE = Path(__file__).resolve().parent
# Closer to what JupyterLab reads; citations and captions are already resolved.
READER = (
    "markdown+lists_without_preceding_blankline-blank_before_header-blank_before_blockquote"
    "-citations-example_lists-fancy_lists-implicit_figures-table_captions"
)
IMAGES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
SUPPLEMENT = "# Supplement\n\nThe figures and tables that the PDF leaves out, each with the code that makes it."
NEVER_SHOWN = {"remove-cell", "parameters", "injected-parameters"}


class ReportExporter(Exporter):
    """Common part of both formats. `meta` holds title, subtitle, date, provenance, abstract, banner as Markdown."""

    meta = Dict().tag(config=True)
    html = True

    @property
    def default_config(self):
        config = Config()
        config.TagRemovePreprocessor.enabled = True
        config.TagRemovePreprocessor.remove_cell_tags = NEVER_SHOWN | (set() if self.html else {HTML_ONLY})
        config.TagRemovePreprocessor.remove_all_outputs_tags = {"remove-output"}
        config.merge(super().default_config)
        return config

    def from_notebook_node(self, nb, resources=None, **kw):
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        with tempfile.TemporaryDirectory() as folder:
            return self.convert(nb, Path(folder)), resources

    def convert(self, nb, folder):
        raise NotImplementedError

    def pandoc(self, nb, folder, writer, *arguments):
        """The whole document as text in the format `writer`; images are left in `folder`."""
        text, media = markdown(nb, self.html)
        for name, content in media.items():
            (folder / name).write_bytes(content)
        (folder / "meta.json").write_text(json.dumps(self.meta), encoding="utf-8")
        try:
            return pypandoc.convert_text(
                text,
                writer,
                READER,
                cworkdir=str(folder),
                extra_args=[
                    "--standalone",
                    "--fail-if-warnings",
                    "--columns=1000",  # a long row does not make a pipe table as wide as the page
                    f"--lua-filter={HERE}/report.lua",
                    f"--metadata-file={folder}/meta.json",
                    *arguments,
                ],
            )
        except RuntimeError as error:
            raise ReportError(f"pandoc could not write the report: {error}") from None


class HTMLReport(ReportExporter):
    """One file that needs no network: style, images and math font are embedded, equations are MathML."""

    output_mimetype = "text/html"
    file_extension = ".html"

    def convert(self, nb, folder):
        return self.pandoc(
            nb,
            folder,
            "html5",
            f"--template={HERE}/template.html",
            f"--css={HERE}/style.css",
            "--embed-resources",
            "--mathml",
            "--toc",
            "--toc-depth=2",
        )


class PDFReport(ReportExporter):
    """A4, made by typst from its embedded fonts only, so that it is the same on every machine.

    After each report `preview` is a small picture of its first page, as a PNG file.
    """

    output_mimetype = "application/pdf"
    file_extension = ".pdf"
    html = False

    def convert(self, nb, folder):
        source = self.pandoc(nb, folder, "typst", f"--template={HERE}/template.typ")
        look: dict[str, Any] = {"root": str(folder), "ignore_system_fonts": True}

        def spots(text):
            return json.loads(typst.query(text.encode(), "<spot>", field="value", **look))

        try:
            arranged = layout.arrange(source, spots).encode()
            pages = typst.compile(arranged, format="png", ppi=80, **look)
            self.preview = pages[0] if isinstance(pages, list) else pages  # typst gives a single page as it is
            return typst.compile(arranged, **look)
        except (RuntimeError, typst.TypstError) as error:
            raise ReportError(f"typst could not make the PDF: {error}") from None

    def typst_source(self, nb):
        """The Typst text of the PDF, for a look at what is in it."""
        nb, _ = Exporter.from_notebook_node(self, nb)
        with tempfile.TemporaryDirectory() as folder:
            return self.pandoc(nb, Path(folder), "typst", f"--template={HERE}/template.typ")


def page_count(pdf):
    """The pages of a PDF made by typst, which writes its page objects uncompressed."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def join(notebooks):
    """All cells of the resolved notebooks (in order) as one, their reference lists gathered at the end.

    Behind these comes the supplement, which only the HTML shows. Their banners are left out: the templates show one.
    """
    cells, references, supplement = [], set(), []
    for notebook in notebooks:
        extra = []
        for cell in notebook.cells:
            role = cell.metadata.get("report", {})
            if role.get("references"):
                references.update(cell.source.split("\n\n")[1:])
            elif role.get("supplement"):
                extra.append(cell)
            elif not role.get("banner"):
                cells.append(cell)
        if extra:
            supplement += [_html_only(f"## From {_title(notebook)}"), *extra]
    if references:
        listed = sorted(references, key=lambda entry: entry.split("</a>")[1])
        cells.append(new_markdown_cell("\n\n".join(["# References", *listed])))
    if supplement:
        cells += [_html_only(SUPPLEMENT), *supplement]
    return new_notebook(cells=cells)


def _html_only(text):
    return new_markdown_cell(text, metadata={"tags": [HTML_ONLY]})


def _title(notebook):
    """The first numbered heading of a notebook, as a link."""
    texts = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.search(r'<a id="([^"]+)"></a>\n+# (.+)', texts)
    return f"[{found[2]}](#{found[1]})" if found else "a notebook without a title"


def markdown(notebook, html):
    """The notebook as one Markdown document and its images: (str, {file name: bytes}).

    Code is folded in HTML, and absent from the PDF unless its cell is tagged `show-code`; printed text is shown
    with the code, or always with `show-output`.
    """
    blocks: list[str] = []
    media: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            blocks.append(cell.source)
        elif cell.cell_type == "code":
            blocks += _code_cell(cell, html, media)
    return "\n\n".join(blocks) + "\n", media


def _code_cell(cell, html, media):
    tags = cell.metadata.get("tags", [])
    printed: list[str] = []
    shown: list[str] = []
    for output in cell.outputs:
        folded = output.output_type == "stream" and "show-output" not in tags
        (printed if folded else shown).append(_output(output, cell.metadata.get("report", {}), media))
    code = [_fence(cell.source, "python")] if cell.source.strip() and "remove-input" not in tags else []
    if not html:
        return (code if "show-code" in tags else []) + shown
    if code or printed:
        opened = " open" if "show-code" in tags else ""
        title = "Code" if code else "Printed output"
        code = [f'<details class="code"{opened}><summary>{title}</summary>', *code, *printed, "</details>"]
    return code + shown


def _output(output, look, media):
    """The richest representation of one output, as Markdown."""
    if output.output_type == "stream":
        return _fence(output.text, "output")
    if output.output_type == "error":
        return _fence(f"{output.ename}: {output.evalue}", "output")
    data = output.data
    for mime, extension in IMAGES.items():
        if mime in data:
            name = f"image-{len(media) + 1}.{extension}"
            media[name] = data[mime].encode() if extension == "svg" else base64.b64decode(data[mime])
            width = f'{{width="{look["width"]}"}}' if "width" in look else ""
            return f"![{_literal(look.get('alt', ''))}]({name}){width}"
    if "text/markdown" in data:
        return data["text/markdown"]
    if "text/html" in data:
        return _fence(data["text/html"], "html-output")  # report.lua reads it
    return _fence(data.get("text/plain", ""), "output")


def _fence(text, kind):
    ticks = max((len(run) for run in re.findall("`{3,}", text)), default=2) + 1
    return f"{'`' * ticks} {{.{kind}}}\n{text.rstrip()}\n{'`' * ticks}"


def _literal(text):
    return re.sub(r"([^\w\s])", r"\\\1", text)
