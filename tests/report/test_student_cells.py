"""What people add to the notebooks: it is in the HTML and in the PDF, or a line stands in its place."""

import base64
import re

import nbformat
import pypdf
import pytest
from nbformat.v4 import new_markdown_cell, new_raw_cell
from PIL import Image
from test_report import META, RECORD, code, notebook, project  # noqa: F401

from helpers.report import cells, fonts, publish, render, resolve


def pasted(text, name, path):
    """A Markdown cell with an image pasted into it."""
    return new_markdown_cell(text, attachments={name: {"image/png": base64.b64encode(path.read_bytes()).decode()}})


SHOWN = """from IPython.display import HTML, JSON, Image, Latex, Markdown, Math
display(Math(r"\\frac{a}{b}"), Latex(r"\\begin{equation} E = mc^2 \\end{equation}"), Markdown("![](dot.png) done"))
display(Image(url="dot.png"), HTML("<script>1</script>"), HTML('<iframe src="https://example.org"></iframe>'))
display({"application/vnd.plotly.v1+json": {"data": []}}, raw=True)
"""
PRINTED = """import sys
for i in range(3000): print("line", i)
print("w" * 300)
print("\\x1b[31mred\\x1b[0m")
for i in range(5): print(f"\\r{i} of 4", end="", file=sys.stderr)
"""
TEXTS = [
    "# 我的实验 {#sec-mine}\n\n王小明, 이름, こんにちは, 祎 🎉. Write <angle> brackets, a<b, x<sub>2</sub>.",
    "![a photo](my%20photo.jpg){width=50%}\n\n<center><img src='dot.png' width=\"40\"></center>\n\n`![code](no.png)`",
    "\\begin{align}\na &= b \\\\\nc &= d\n\\end{align}\n\n$\\unknown{x}$\n\n![web](https://example.org/x.png)",
    "<table><tr><th>A</th></tr><tr><td>in HTML</td></tr></table>\n\n[here](#My-Heading), [not here](#nowhere)",
    "A footnote[^1], and what nobody closes:\n\n```python\nopen = 1\n\n[^1]: Mine.",
    "## My Heading\n\nAnother[^1] after it.\n\n[^1]: Yours.",
]


def test_a_report_of_such_cells(project, capfd):  # noqa: F811
    source, run, output = project
    folder = output.parent / "notebooks"
    Image.effect_noise((80, 50), 60).convert("RGB").save(folder / "my photo.jpg")
    Image.effect_noise((60, 40), 60).save(folder / "dot.png")
    paste = pasted("Pasted: ![image.png](attachment:image.png)", "image.png", folder / "dot.png")
    more = [code(SHOWN), code(PRINTED), new_raw_cell("raw <text>")]
    source("01_good", *TEXTS, paste, *more, RECORD)
    source("02_more", "# Second\n\nA third[^1], see @sec-mine.\n\n[^1]: Hers.", RECORD)
    texts = {**META, "title": "报告", "author": "王小明", "student": '"0123"', "module": "INT305"}
    publish.META.write_text("".join(f"{name}: {text}\n" for name, text in texts.items()), encoding="utf-8")
    assert run() == 0
    the_html_and_the_pdf_show_all_of_it(output)
    executed_notebooks_need_no_file_beside_them(output)
    printed = capfd.readouterr().out
    assert "note: the link #nowhere leads nowhere" in printed
    assert printed.count(r"note: Could not convert TeX math \unknown{x}") == 2  # HTML and PDF
    assert printed.count("note:") == 3


def the_html_and_the_pdf_show_all_of_it(report):
    html = re.sub(r"\s+", " ", (report / "report.html").read_text(encoding="utf-8"))
    text = "".join(page.extract_text() for page in pypdf.PdfReader(report / "report.pdf").pages)
    images = sum(len(page.images) for page in pypdf.PdfReader(report / "report.pdf").pages)
    for each, page in (("HTML", html), ("PDF", text)):
        for part in ("王小明", "0123", "INT305", "我的实验", "이름", "こんにちは", "祎", "🎉", "raw"):
            assert part in page, (each, part)
        for part in ("in HTML", "Another", "Mine.", "Yours.", "Hers.", "red", "line 0", "w" * 90, "done"):
            assert part in page, (each, part)
        for part in ("application/vnd.plotly", "only JupyterLab shows", "https://example.org/x.png", "unknown{x}"):
            assert part in page, (each, part)
        assert "1 line of warnings or progress left out" in page, each
        assert "display.Math object" not in page and "\x1b" not in page, each
    assert "&lt;angle&gt;" in html and "<angle>" in text
    assert html.count("<img") == 5 and images >= 2  # typst embeds equal ones once
    assert "line 2999" in html and "more lines are in report.html" in text and len(text) < 5000
    assert 'href="#my-heading"' in html and not re.search(r'src="(?!data:)', html)
    assert len(re.findall("<math", html)) >= 3
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def executed_notebooks_need_no_file_beside_them(report):
    nb = nbformat.read(report / "notebooks" / "01_good.ipynb", as_version=4)
    nbformat.validate(nb)
    whole = nbformat.writes(nb)
    assert "attachment:my-photo.jpg" in whole and "attachment:dot.png" in whole and "data:image/png;base64" in whole
    assert "](my%20photo.jpg)" not in whole and "src='dot.png'" not in whole and "`![code](no.png)`" in whole


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("Thanks to @wangxm.", "02_bad: unknown citation @wangxm: it is not in refs.bib"),
        ("See @fig-nowhere.", "02_bad: unknown reference @fig-nowhere"),
        (code('notebook.paragraph(f"{x:.2f} in @tbl-nowhere.")'), "02_bad: unknown reference @tbl-nowhere"),
        (code('notebook.paragraph("As in [@nobody1999].")'), "02_bad: unknown citation @nobody1999"),
        ("![x](absent.png)", "02_bad: there is no image 'absent.png' beside the notebook"),
        ("![x](notes.txt)", "02_bad: there is no image 'notes.txt' beside the notebook"),
        ("![x](attachment:image.png)", "02_bad: the pasted image image.png is missing from its cell: paste it again"),
        ("![x](damaged.png)", "02_bad: typst could not make the PDF"),
        ("Cuneiform 𒀀.", "02_bad: no font here can print 𒀀 (U+12000 CUNEIFORM SIGN A)"),
        (code("x = ]"), "02_bad: a cell is no Python: unmatched ']', in: x = ]"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_runs(project, capsys, cell, says):  # noqa: F811
    source, run, output = project
    for name in ("notes.txt", "damaged.png"):
        (output.parent / "notebooks" / name).write_text("not an image")
    source("01_good", code("1 / 0"))
    source("02_bad", "# Bad", cell)
    assert run() == 1
    message = capsys.readouterr().err
    assert says in message and "ZeroDivisionError" not in message and not (output / "report.html").exists()


@pytest.mark.parametrize(
    "cell",
    [
        code('%matplotlib inline\n!ls\nx = f"@fig-{1}-b"\n"mail@example.org", "@property", "@fig-a"'),
        code('notebook.paragraph("# Computed {#sec-computed}")'),
        "See @sec-computed and @fig-a.",
    ],
)
def test_what_only_the_run_defines_is_not_refused(project, cell):  # noqa: F811
    source, run, output = project
    figure = code("#| label: fig-a\n1 / 0")
    source("01_good", figure, code('"# Computed {#sec-computed}"'), cell)
    assert run() == 1 and (output / "failed" / "01_good.ipynb").exists()  # by the division


def test_a_front_page_that_is_no_yaml_is_refused(project, capsys):  # noqa: F811
    source, run, _ = project
    source("01_good", code("1 / 0"))
    publish.META.write_text("author: Wang: Xiaoming\n")
    assert run() == 1
    assert "meta.yaml must hold lines like `author: 王小明`" in capsys.readouterr().err


def test_a_character_that_only_the_run_shows_is_named_by_its_number(monkeypatch):
    output = nbformat.v4.new_output("display_data", {"text/markdown": "Cuneiform 𒀀."})
    nb = resolve.resolve({"01_a": notebook(code("x", output))}, {})["01_a"]
    pdf = render.PDFReport(meta={**META, "pagetitle": "T", "banner": ""})
    made, _ = pdf.from_notebook_node(nb)
    assert pdf.notes == ["no font here has U+12000 CUNEIFORM SIGN A"]
    assert fonts.choose("abc 王 é 🎉") == (fonts.ours(), "")


def test_a_printed_text_is_shortened_in_the_middle():
    assert cells.shortened("a\n\nb\n") == "a\n\nb"
    lines = cells.shortened("\n".join(map(str, range(20)))).split("\n")
    assert lines == ["0", "1", "2", "3", "4", "[... 13 more lines are in report.html]", "18", "19"]
    assert cells.shortened("w" * 250).split("\n") == ["w" * 100, "w" * 100, "w" * 50]


def test_a_very_wide_table_keeps_its_outer_columns_in_the_pdf():
    row = "".join(f"<td>c{i}</td>" for i in range(30))
    frame = f"<table><thead><tr>{row.replace('td', 'th')}</tr></thead><tbody><tr>{row}</tr></tbody></table>"
    nb = notebook(code("frame", nbformat.v4.new_output("display_data", {"text/html": frame})))
    source = render.PDFReport(meta={**META, "pagetitle": "T", "banner": ""}).typst_source(nb)
    assert "[c5]" in source and "[c6]" not in source and "[c29]" in source and "19 columns (…)" in source


def test_a_wide_table_with_two_header_rows_is_set():
    wide = "".join(f"<td>{'words ' * 9}</td>" for _ in range(4))
    head = '<tr><th colspan="2">one</th><th colspan="2">two</th></tr><tr><th>a</th><th>b</th><th>c</th><th>d</th></tr>'
    frame = f"<table><thead>{head}</thead><tbody><tr>{wide}</tr></tbody></table>"
    nb = notebook(code("frame", nbformat.v4.new_output("display_data", {"text/html": frame})))
    source = render.PDFReport(meta={**META, "pagetitle": "T", "banner": ""}).typst_source(nb)
    assert source.count("words") == 36 and "colspan: 2" in source


def test_unknown_kinds_of_angles_are_text():
    escaped = resolve._literal_angles("<name> and `<code>` and <b>bold</b>, $a<b>c$, <https://x.org>, <i@x.org>, </x>")
    assert escaped == "\\<name> and `<code>` and <b>bold</b>, $a<b>c$, <https://x.org>, <i@x.org>, \\</x>"
