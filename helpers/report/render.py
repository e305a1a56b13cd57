"""Resolved notebooks -> one HTML file and one PDF.

nbconvert's preprocessors drop the cells that a format does not show; cells.py writes what is left as one Markdown
document; pandoc, with report.lua, turns that into HTML, or into Typst, which typst compiles to PDF. Nothing here
gives numbers or looks anything up: see resolve.py.
"""

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

from . import ReportError, cells, explorer, fonts, layout
from .resolve import FIRST_PAGE, HTML_ONLY, has_tag

HERE = Path(__file__).resolve().parent
# Closer to what JupyterLab reads; citations and captions are already resolved.
READER = (
    "markdown+lists_without_preceding_blankline-blank_before_header-blank_before_blockquote"
    "-citations-example_lists-fancy_lists-implicit_figures-table_captions"
)
SUPPLEMENT = "# Supplement\n\nThe figures and tables that the PDF leaves out, each with the code that makes it."
NEVER_SHOWN = {"remove-cell", "parameters", "injected-parameters"}


class ReportExporter(Exporter):
    """Common part of both formats. `meta` holds title, subtitle, date, provenance, abstract, banner as Markdown."""

    meta = Dict().tag(config=True)
    html = True
    notes: list[str] = []  # on what is not shown as its author meant it

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
        text, media = cells.as_markdown(nb if self.html else _without_uncited(nb), self.html)
        for name, content in media.items():
            (folder / name).write_bytes(content)
        (folder / "meta.json").write_text(json.dumps(self.meta), encoding="utf-8")
        try:
            made = pypandoc.convert_text(
                text,
                writer,
                READER,
                cworkdir=str(folder),
                extra_args=[
                    "--standalone",
                    "--quiet",
                    f"--log={folder}/log.json",
                    "--columns=1000",  # a long row does not make a pipe table as wide as the page
                    f"--lua-filter={HERE}/report.lua",
                    f"--metadata-file={folder}/meta.json",
                    *arguments,
                ],
            )
        except RuntimeError as error:
            raise ReportError(f"pandoc could not write the report: {error}") from None
        log = json.loads((folder / "log.json").read_text(encoding="utf-8"))
        self.notes = [_said(entry) for entry in log if entry["verbosity"] == "WARNING"]
        return made


class HTMLReport(ReportExporter):
    """One file that needs no network: style, scripts, images and math font are embedded, equations are MathML."""

    output_mimetype = "text/html"
    file_extension = ".html"

    def convert(self, nb, folder):
        interactive = explorer.found(nb)
        page = self.pandoc(
            nb,
            folder,
            "html5",
            f"--template={HERE}/template.html",
            f"--css={HERE}/style.css",
            f"--variable=scripts:{HERE}",
            *(f"--variable={kind}" for kind in interactive),
            "--embed-resources",
            "--mathml",
            "--shift-heading-level-by=1",  # the title is the one h1
            "--toc",
            "--toc-depth=3",
        )
        page = re.sub(r"<th\b[^>]*>(?:\s|&nbsp;)*</th>", "<td></td>", page)  # a header that says nothing is none
        return page.replace("</head>", f"{explorer.embedded(interactive)}\n</head>", 1)


class PDFReport(ReportExporter):
    """A4, made by typst with the fonts of fonts.py.

    After each report `preview` is a small picture of its first page, as a PNG file.
    """

    output_mimetype = "application/pdf"
    file_extension = ".pdf"
    html = False

    def convert(self, nb, folder):
        source = self.pandoc(nb, folder, "typst", f"--template={HERE}/template.typ")
        chosen, lacking = fonts.choose(source)
        source = source.translate({ord(char): f"(U+{ord(char):04X})" for char in lacking})
        self.notes += [f"no font here has {fonts.in_words(char)}" for char in lacking]
        look: dict[str, Any] = {"root": str(folder), **chosen}

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


def _said(entry):
    """A warning of pandoc's log in one line; those of report.lua without the place of its code."""
    return entry["message"] if entry["type"] == "ScriptingWarning" else entry["pretty"].splitlines()[0]


def page_count(pdf):
    """The pages of a PDF made by typst, which writes its page objects uncompressed."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def join(notebooks):
    """All cells of the resolved notebooks (in order) as one, their reference lists gathered at the end.

    Behind these comes the supplement, which only the HTML shows. Their banners are left out: the templates show one.
    """
    first, cells, references, supplement = [], [], set(), []
    for notebook in notebooks:
        extra = []
        for cell in notebook.cells:
            role = cell.metadata.get("report", {})
            if role.get("references"):
                references.update(cell.source.split("\n\n")[1:])
            elif role.get("supplement"):
                extra.append(cell)
            elif has_tag(cell, FIRST_PAGE):
                first.append(cell)
            elif not role.get("banner"):
                cells.append(cell)
        if extra:
            supplement += [_html_only(f"## From {_title(notebook)}"), *extra]
    if references:
        listed = sorted(references, key=lambda entry: entry.split("</a>")[1])
        cells.append(new_markdown_cell("\n\n".join(["# References", *listed])))
    if supplement:
        cells += [_html_only(SUPPLEMENT), *supplement]
    return new_notebook(cells=first + cells)


def _without_uncited(nb):
    """The cells without the entries of the reference list that only a cell left out of the PDF cites."""
    *shown, last = nb.cells
    if not last.source.startswith("# References"):
        return nb
    cited = set(re.findall(r"\(#(ref-[\w-]+)\)", json.dumps(shown)))
    heading, *entries = last.source.split("\n\n")
    kept = [entry for entry in entries if cited.intersection(re.findall(r'id="([^"]+)"', entry))]
    return new_notebook(cells=[*shown, new_markdown_cell("\n\n".join([heading, *kept]))])


def _html_only(text):
    return new_markdown_cell(text, metadata={"tags": [HTML_ONLY]})


def _title(notebook):
    """The first numbered heading of a notebook, as a link."""
    texts = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.search(r'<a id="([^"]+)"></a>\n+# (.+)', texts)
    return f"[{found[2]}](#{found[1]})" if found else "a notebook without a title"
