"""The road from executed notebooks to the report, on two notebooks of a few cells."""

import base64
import contextlib
import io
import json
import re
import sys
from copy import deepcopy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import config, files
from helpers.commands import verify
from helpers.report import ReportError, __main__, bibliography, execute, layout, publish, render
from helpers.report.resolve import cell_options, resolve

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
    )
).decode()
NUMBERS = {
    "accuracy": 0.7,
    "accuracy_low": 0.69,
    "accuracy_high": 0.71,
    "macro_f1": 0.7,
    "nll": 0.9,
    "ece": 0.02,
    "brier": 0.4,
}
SETTINGS = {"profile": "full", "seed": 0, "device": "auto", "train_minutes": 2, "changes": {}}
EVALUATION = {
    "test": {"BaselineNet": NUMBERS, "ImprovedNet": {**NUMBERS, "accuracy": 0.9}},
    "runs": {
        "BaselineNet": {"parameters": 48252, "epochs": 60, "device": "cpu", "date": "2026-11-20", "seconds": 510},
        "ImprovedNet": {"parameters": 815018, "epochs": 80, "device": "cpu", "date": "2026-11-22", "seconds": 9510},
    },
    "seeds": {
        "BaselineNet": {"n": 5, "epochs": 60, "accuracy": 0.7, "accuracy_std": 0.003},
        "ImprovedNet": {"n": 3, "epochs": 15, "accuracy": 0.88, "accuracy_std": 0.0021},
    },
}
FASTNET = {
    "test": {"FastNet": {**NUMBERS, "accuracy": 0.93}},
    "runs": {"FastNet": {"parameters": 1968000, "epochs": 9, "device": "cpu", "date": "2026-11-25", "seconds": 858}},
    "seeds": {"FastNet": {"n": 5, "epochs": 9, "accuracy": 0.93, "accuracy_std": 0.0011}},
}
RESULTS = {"04_evaluation": EVALUATION, "03_improved": FASTNET}


def shown(data, **metadata):
    return new_output("display_data", data, metadata=metadata)


def record(numbers, **settings):
    """What notebook.record emits, in a cell."""
    content = {"settings": SETTINGS | settings, "numbers": numbers}
    output = shown({"application/json": content, "text/plain": "RECORDED"}, results=True)
    return code("record()", output)


def code(source, *outputs, tags=()):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)} if tags else {})


def notebook(*cells):
    return new_notebook(cells=[new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells])


@pytest.fixture
def pair():
    """Two executed notebooks with one of everything."""
    image, spoken = shown({"image/png": PIXEL}), shown({"image/png": PIXEL}, alt="It is −1.")
    table = shown({"text/html": "<table><tr><th>a</th></tr><tr><td>+1</td></tr></table>"})
    stderr = new_output("stream", name="stderr", text="WARNED")
    first = notebook(
        "# Data {#sec-data}\n\nSee @fig-late, [@tbl-pipe; @tbl-frame] and [see @guo2017, p. 3; @he2016].\n\n## Split"
        "\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n: A pipe table of @krizhevsky2009. {#tbl-pipe}"
        "\n\n```\n# not a heading @nobody\n```",
        code("print(1)", stderr, new_output("stream", text="\x1b[1mFOLDED\x1b[0m\n")),
        code(
            "#| label: fig-early\n#| fig-cap: Early, and\n#|   longer.\n#| out-width: 40%\nplot()",
            image,
            tags=["show-code"],
        ),
        code("secret = 1", tags=["remove-cell"]),
        record({"a": {"b": 1 / 3}}),
        record({"a": {"d": 4}}),
    )
    second = notebook(
        "# Model <!-- #sec-model -->\n\nBy $$ a = b $$ {#eq-ab} and @eq-ab, `@property` in @sec-data.",
        new_markdown_cell(
            "## Aside {#sec-aside}\n\nBROWSER, see @fig-early.\n\n### Apart", metadata={"tags": ["html-only"]}
        ),
        code("#| label: fig-more\n#| fig-cap: More.\nplot_more()", image, tags=["html-only"]),
        code("#| label: fig-late\n#| fig-cap: Late.\n#| fig-alt: a [grey] dot\nplot()", spoken),
        code("#| label: tbl-frame\n#| tbl-cap: A frame.\nframe", table),
        code("injected = 1", tags=["injected-parameters"]),
        code("says = 'Not shown.'", tags=["remove-input"]),
        code("say()", shown({"text/markdown": "Computed: @fig-late, @tbl-pipe, @fig-more."}), tags=["remove-input"]),
        code("plot_hidden()", image, tags=["remove-input"]),
        "## Next\n\nIn @sec-aside. In brackets (@fig-more, @sec-aside). Or (@fig-late), or (see @fig-more).",
        code("#| label: tbl-said\nframe", table, shown({"text/markdown": ": Computed caption."})),
        record({"a": {"c": 2}}),
    )
    return {"01_data": first, "02_model": second}


@pytest.fixture
def resolved(pair):
    return resolve(pair, bibliography.load())


def texts(nb):
    """All Markdown of a notebook, of cells and of outputs."""
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            yield cell.source
        yield from (o.data["text/markdown"] for o in cell.get("outputs", []) if "text/markdown" in o.get("data", {}))


def test_the_pdf_lists_what_it_cites():
    entries = ['<a id="ref-a2000"></a>A (2000).', '<a id="ref-b2001"></a>B (2001).']
    listed = new_markdown_cell("\n\n".join(["# References", *entries]))
    cited = new_markdown_cell("As [A, 2000](#ref-a2000) found.")
    kept = render._without_uncited(new_notebook(cells=[cited, listed])).cells[-1].source
    assert kept == f"# References\n\n{entries[0]}"
    plain = new_notebook(cells=[cited, cited])
    assert render._without_uncited(plain) == plain


def test_numbers_run_through_the_report_and_links_lead_to_the_right_notebook(resolved):
    data, model = ("\n".join(texts(nb)) for nb in resolved.values())
    assert "[Figure\u00a02](02_model.ipynb#fig-late)" in data
    assert "[Table\u00a01](#tbl-pipe), [Table\u00a02](02_model.ipynb#tbl-frame)" in data
    assert '<a id="sec-data"></a>\n\n# 1 Data' in data and "## 1.1 Split" in data and "# not a heading @nobody" in data
    assert "**Table 1.** A pipe table of [Krizhevsky (2009)](#ref-krizhevsky2009)." in data
    assert "(see [Guo et al., 2017](#ref-guo2017), p. 3; [He et al., 2016](#ref-he2016))" in data
    assert '<a id="fig-early"></a>' in data and "**Figure 1.** Early, and longer." in data
    assert "# 2 Model" in model and "a = b \\tag{1}" in model and "[Equation\u00a01](#eq-ab)" in model
    assert "`@property` in [Section\u00a01](01_data.ipynb#sec-data)" in model
    assert "**Table 3.** Computed caption." in model
    assert "**Supplementary Figure S1.** More." in model and "[Supplementary Figure\u00a0S1](#fig-more)" in model
    assert "## S1 Aside" in model and "### Apart" in model  # without the numbers that the PDF shows
    assert "## 2.1 Next" in model and "[Supplementary Section\u00a0S1](#sec-aside)" in model


def test_computed_text_is_markdown_and_code_that_nobody_reads_is_left_out(resolved):
    cells = resolved["02_model"].cells
    (said,) = [cell for cell in cells if cell.source.startswith("Computed: ")]
    assert said.cell_type == "markdown" and "[Figure\u00a02](#fig-late)" in said.source
    whole = nbformat.writes(resolved["02_model"])
    assert "say()" not in whole and "Not shown." not in whole and "injected" not in whole
    (hidden,) = [cell for cell in cells if cell.source == "plot_hidden()"]
    assert hidden.metadata["jupyter"] == {"source_hidden": True}


def test_resolved_notebooks_hold_nothing_raw_or_private(pair, resolved):
    before = deepcopy(pair)
    for nb in resolve(pair, bibliography.load()).values():
        nbformat.validate(nb)
        whole = nbformat.writes(nb).replace("`@property`", "").replace("@nobody", "")
        assert not re.search(r"@[a-z]|\{#|#\||WARNED|RECORDED|\\u001b|papermill", whole)
    assert pair == before
    assert [nbformat.writes(nb) for nb in resolved.values()] == [
        nbformat.writes(nb) for nb in resolve(pair, bibliography.load()).values()
    ]
    assert resolved["01_data"].cells[-1].source.count("<a id=") == 3  # what this notebook cites, and no more


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("See @fig-nowhere.", "01_a: unknown reference @fig-nowhere"),
        ("See [@nobody1999].", "01_a: unknown citation @nobody1999"),
        ("# A {#sec-a}\n\n# B {#sec-a}", "01_a: the label sec-a is already used in 01_a"),
        ("text {#tbl-lost}", r"01_a: \{#tbl-lost\} does not follow"),
        ("# A {#sec-a .unnumbered}", "01_a: the heading sec-a has a label but no number"),
        (code("#| label: fig-a\nplot()", shown({"image/png": PIXEL})), "01_a: the cell fig-a has no fig-cap"),
        (code("#| label: tbl-a\n#| tbl-cap: A\n1"), "01_a: the cell tbl-a shows no table"),
    ],
)
def test_mistakes_of_the_author_are_named(cell, message):
    with pytest.raises(ReportError, match=message):
        resolve({"01_a": notebook(cell)}, bibliography.load())


def test_cell_options_are_split_from_the_code():
    options, source = cell_options('#| label: fig-x\n#| fig-cap: "Ratio: a"\n\n# comment\nx = 1')
    assert options == {"label": "fig-x", "fig-cap": "Ratio: a"} and source == "# comment\nx = 1"


META = {"title": "Title", "subtitle": "S", "date": "1 May", "abstract": "Short.", "provenance": "P", "lang": "en-GB"}


def test_html_holds_everything_in_one_file(resolved):
    exporter = render.HTMLReport(meta={**META, "pagetitle": "T", "banner": "BANNER"})
    page, _ = exporter.from_notebook_node(render.join(resolved.values()))
    assert page.index("BANNER") < page.index("Title</h1>")
    assert "BROWSER" in page and "FOLDED" in page and "secret" not in page
    assert "<figcaption><strong>Figure 1.</strong> Early" in page and 'alt="a [grey] dot It is −1."' in page
    scroller = (
        r'<figure id="tbl-frame">\s*<div class="scroll" role="region" aria-labelledby="tbl-frame-caption">\s*<table'
    )
    assert re.search(scroller, page) and '<span id="tbl-frame-caption"><strong>Table 2.</strong>' in page
    folds = {" ".join(title.split()) for title in re.findall("<summary>(.*?)</summary>", page, re.S)}
    assert {"Code of Figure 1", "Code"} <= folds
    assert '<details class="code" open>' in page and "<math" in page and "\\tag" not in page
    assert page.count(">References</h2>") == 1 and page.count('id="ref-he2016"') == 1
    supplement = page[page.index(">Supplement</h2>") :]
    assert supplement.index('href="#sec-model">2 Model</a>') < supplement.index(
        "Supplementary Figure S1.</strong> More"
    )
    assert page.index(">References</h2>") < page.index(">Supplement</h2>") and page.count("More.") == 1
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'id="([^"]+)"', page)) and "fig-late" in links
    assert not re.search(r'(src|href)="(?!#|data:|https://doi.org/)', page)
    assert page == exporter.from_notebook_node(render.join(resolved.values()))[0]


def test_pdf_leaves_out_code_and_what_is_for_the_browser(resolved):
    exporter = render.PDFReport(meta={**META, "pagetitle": "T", "banner": ""})
    whole = render.join(resolved.values())
    source = exporter.typst_source(whole)
    assert "BROWSER" not in source and "print(1)" not in source and "FOLDED" in source  # printed text stays
    assert source.count("plot()") == 1  # show-code
    assert 'link("report.html#fig-more")[Supplementary Figure~S1]' in source and "<fig-more>" not in source
    assert "More." not in source and "Supplement</h2>" not in source
    assert re.search(r"In brackets\. Or \(#link\(<fig-late>\)\[Figure.2\]\), or \(see #link", source)
    assert (
        'image("image-1.png", width: 40%' in source
        and 'alt: "a [grey] dot It is −1."' in source
        and "<tbl-frame>" in source
    )
    pdf, _ = exporter.from_notebook_node(whole)
    assert pdf.startswith(b"%PDF") and render.page_count(pdf) == pdf.count(b"/MediaBox")
    assert pdf == exporter.from_notebook_node(whole)[0]


def test_the_pdf_marks_what_stays_together():
    text = "Claim:\n\n- a\n- b\n\nIt is\n\n$$ a = b $$ {#eq-a}\n\nwhere $a$ is.\n\nNext."
    whole = render.join(resolve({"01_a": notebook(text)}, {}).values())
    source = render.PDFReport(meta={**META, "pagetitle": "T", "banner": ""}).typst_source(whole)
    assert re.findall("^//: (.*)", source, re.M) == ["text", "bound", "text", "bound", "bound", "text", "text"]


def spots(heights):
    """A page of 100 pt for layout.arrange: what stands where when floats do not break and texts of 10 pt lines do."""

    def measure(source):
        page, y = 1, 0.0
        for name, text in re.findall(r'#spot\("(.*?)"\)\n\n(.*?)\n\n#place', source, re.S):
            height = sum(heights[block] for block in text.split())
            if name.startswith("float") and y + height > 100:
                page, y = page + 1, 0.0
            yield name, page, layout.TOP + y
            page, y = page + int((y + height) // 100), (y + height) % 100
            yield f"end of {name}", page, layout.TOP + y

    return lambda source: list(measure(source))


@pytest.mark.parametrize(
    ("blocks", "arranged"),
    [
        ("a:40 A:50 b:40", "a A b"),
        ("a:40 A:70 b:40 c:40 d:10", "a b c A d"),  # b alone would leave a gap of 20
        ("a:40 A:70 B:20 b:90 c:10", "a b A B c"),  # A does not overtake B
        ("a:40 b!:40 A:50 c:10 d!:60 e:10", "a b c d A e"),  # d belongs to c
        ("a:40 A:70", "a A"),
    ],
)
def test_floats_move_down_past_the_text_that_fills_their_page(monkeypatch, blocks, arranged):
    monkeypatch.setattr(layout, "BOTTOM", layout.TOP + 100)
    monkeypatch.setattr(layout, "GAP", 15)
    heights, source = {}, "head\n"
    for block in blocks.split():
        name, height = block.split(":")
        bare = name.strip("!")
        heights[bare] = float(height)
        kind = "bound" if name != bare else "float" if bare.isupper() else "text"
        source += f"//: {kind}\n{bare}\n\n"
    body = layout.arrange(source, spots(heights))
    assert re.findall(r"\w+", body) == ["head", *arranged.split()]


def test_only_a_long_table_may_break_over_pages():
    def source(rows):
        pipe = "| a |\n|---|\n" + "| x |\n" * rows + "\n: Rows. {#tbl-rows}"
        whole = render.join(resolve({"01_a": notebook(pipe)}, {}).values())
        return render.PDFReport(meta={**META, "pagetitle": "T", "banner": ""}).typst_source(whole)

    assert "breakable: true" not in source(5) and "breakable: true" in source(40)


def test_results_are_those_of_each_notebook_rounded(resolved):
    assert publish.results(resolved) == {
        "01_data": {"settings": SETTINGS, "a": {"b": 0.333333, "d": 4}},
        "02_model": {"settings": SETTINGS, "a": {"c": 2}},
    }
    assert publish.merge({"a": {"b": 1}}, {"a": {"b": 2}, "d": 3}) == {"a": {"b": 2}, "d": 3}
    assert publish.dump({"b": 1, "a": 2}) == '{\n  "a": 2,\n  "b": 1\n}\n'
    with pytest.raises(ReportError, match="nan"):
        publish.results(resolve({"01_a": notebook(record({"a": float("nan")}))}, {}))


def test_a_record_of_an_older_version_is_refused():
    old = code("record()", shown({"application/json": {"a": 1}}, results=True))
    with pytest.raises(ReportError, match="01_a was run by another version"):
        publish.results(resolve({"01_a": notebook(old)}, {}))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"profile": "quick"}, "profile is as published in the one and quick in the other"),
        ({"seed": 1}, "seed is as published in the one and 1 in the other"),
        (
            {"changes": {"ImprovedNet": {"rotation": 15}}},
            "ImprovedNet.rotation is as published in the one and 15 in the other",
        ),
    ],
)
def test_notebooks_of_different_settings_make_no_report(changed, says):
    values = {"02_baseline": {"settings": SETTINGS}, "03_improved": {"settings": SETTINGS | changed}}
    with pytest.raises(ReportError, match=f"^02_baseline and 03_improved ran with .*: {says}"):
        publish.settings(values)


def test_what_decides_no_number_may_differ():
    elsewhere = SETTINGS | {"device": "cpu", "train_minutes": 30, "changes": {"ImprovedNet": {}}}
    values = {"01_a": {"settings": SETTINGS}, "02_b": {"settings": elsewhere}}
    assert publish.settings(values) == SETTINGS
    with pytest.raises(ReportError, match="no notebook recorded"):
        publish.settings({})


def test_readme_block_is_replaced_and_nothing_else():
    text = "before\n<!-- results -->\nold\n<!-- /results -->\nafter\n"
    new = publish.updated_readme(text, RESULTS)
    head = "| | BaselineNet | ImprovedNet | FastNet |\n| --- | ---: | ---: | ---: |\n"
    assert new.startswith(f"before\n<!-- results -->\n{head}")
    assert "| 70.00% [69.00%, 71.00%] | 90.00% [69.00%, 71.00%] | 93.00% [69.00%, 71.00%] |\n" in new
    assert "| (88.00 ± 0.21)%, 3 seeds of 15 epochs | (93.00 ± 0.11)%, 5 seeds of 9 epochs |\n" in new
    assert "| 0.900 | 0.900 | 0.900 |" in new and "| Training time | 8 min | 2 h 38 min | 14 min |" in new
    assert new.endswith("\n<!-- /results -->\nafter\n") and "old" not in new
    assert publish.updated_readme(new, RESULTS) == new
    once = {"seeds": {"FastNet": {"n": 1, "epochs": 9, "accuracy": 0.93}}}
    assert "3 seeds of 15 epochs | one seed |" in publish.readme_table(RESULTS | {"03_improved": FASTNET | once})
    with pytest.raises(ValueError, match="README.md has no block"):
        publish.updated_readme("nothing", RESULTS)
    with pytest.raises(ReportError, match="needs 'runs'"):
        publish.readme_table({stem: {"test": each["test"]} for stem, each in RESULTS.items()})
    with pytest.raises(ReportError, match="needs '04_evaluation'"):
        publish.readme_table({})


def test_the_verdict_is_on_the_best_network():
    says = publish.verdict(RESULTS)
    assert says.startswith("FastNet, trained in 14 min, classifies 93.00% of the test images correctly: past the ref")
    worse = {"03_improved": {**FASTNET, "test": {"FastNet": {**NUMBERS, "accuracy": 0.8}}}}
    assert "ImprovedNet" in publish.verdict(RESULTS | worse) and "short of" in publish.verdict(RESULTS | worse)
    assert publish.verdict({"04_evaluation": EVALUATION}).startswith("ImprovedNet, ")
    assert publish.verdict({"01_good": {"x": 1}}) == ""


def test_abstract_is_filled_and_a_missing_number_is_named(tmp_path):
    path = tmp_path / "meta.yaml"
    number = "{04_evaluation[test][ImprovedNet][accuracy]:.1%}"
    path.write_text(f'title: T\ndate: "{{date}}"\nabstract: "{number} in ${{{{a}}}}$"\n')
    filled = publish.metadata(RESULTS, path, "B")
    assert filled["abstract"] == "90.0% in ${a}$" and filled["date"] == "25 November 2026"
    assert filled["banner"] == "B" and publish.metadata(RESULTS, path)["banner"] == ""
    with pytest.raises(ReportError, match=r"asks for \{04_evaluation\[test\]\[ImprovedNet\]"):
        publish.metadata({"04_evaluation": {"test": {}}}, path)


def status(*arguments):
    """Run the command; its exit status, with the last words where Python prints them."""
    try:
        __main__.main(arguments)
    except SystemExit as end:
        print(end.code, file=sys.stderr)
        return 1 if isinstance(end.code, str) else end.code
    return 0


PARAMETERS = code(
    'profile = "full"\nseed: int = 0\ndevice = "auto"\ntrain_minutes = 2\nepochs = 0\nchanges = {}', tags=["parameters"]
)
# As notebook.record does it, without waiting for PyTorch.
RECORD = code(
    "settings = dict(profile=profile, seed=seed, device=device, train_minutes=train_minutes, changes=changes)\n"
    'display({"application/json": {"settings": settings, "numbers": {"x": train_minutes}}}, raw=True,'
    ' metadata={"results": True})'
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of notebook sources, a simple meta.yaml, and the command line that uses them."""
    (tmp_path / "notebooks").mkdir()
    meta = tmp_path / "meta.yaml"
    texts = {**META, "abstract": '"x = {01_good[x]}"'}
    meta.write_text("".join(f"{name}: {text}\n" for name, text in texts.items()))
    monkeypatch.setattr(publish, "META", meta)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(__main__, "REPORTS", tmp_path / "reports")

    def source(name, *cells):
        nbformat.write(notebook(PARAMETERS, *cells), tmp_path / "notebooks" / f"{name}.ipynb")

    def run(*options, profile="smoke", output="out"):
        place = ["--output", output] if output else []
        return status("--profile", profile, "--notebooks", "notebooks", *place, *options)

    return source, run, tmp_path / "out"


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_failing_notebook_leaves_the_last_report_whole(project, capfd):
    source, run, output = project
    source("01_good", code('print("epoch 1", profile)'), RECORD)
    assert run() == 0
    printed = capfd.readouterr()
    assert re.match(r"sources checked  \d+ s\n01_good: 3 cells\nepoch 1 smoke\n01_good  \d+ s\n", printed.out)
    assert "report.pdf (1 pages)" in printed.out and "\r" not in printed.out + printed.err
    good = everything(output)
    assert set(good) == {"notebooks/01_good.ipynb", "report.html", "report.pdf", "results.json"}
    settings = SETTINGS | {"profile": "smoke"}
    assert json.loads(good["results.json"]) == {"01_good": {"settings": settings, "x": 2}}
    assert str(output.parent).encode() not in b"".join(good.values())

    source("02_bad", code("#| label: fig-bad\n1 / 0"))
    assert run() == 1
    message = capfd.readouterr().err.strip().splitlines()
    assert "02_bad failed in cell fig-bad (In [3])" in message and "  ZeroDivisionError: division by zero" in message
    assert len(message) <= 5 and any("out/failed/02_bad.ipynb" in line for line in message)
    assert set(everything(output)) == set(good) | {"failed/02_bad.ipynb"}
    assert all((output / name).read_bytes() == content for name, content in good.items())

    assert run("--render-only") == 0  # what was executed before the failure, the same bytes; the failure is forgotten
    assert everything(output) == good
    assert [path.name for path in (config.CACHE / "executed").iterdir()] == ["smoke"]


def test_of_a_notebook_whose_kernel_dies_is_kept_what_it_had_done(project, capfd):
    source, run, output = project
    source("01_dies", code('print("so far")'), code("import os\nos._exit(1)"))
    assert run() == 1
    message = capfd.readouterr().err
    assert "01_dies stopped: DeadKernelError" in message and "out/failed/01_dies.ipynb" in message
    assert '"so far\\n"' in (output / "failed" / "01_dies.ipynb").read_text()


def test_two_reports_are_not_made_at_once(project, capsys):
    _, run, output = project
    with files.locked(config.CACHE / "report.lock", "at it"):
        assert run() == 1
    assert capsys.readouterr().err.startswith("another process is making a report here: wait for it to finish.")
    assert not output.exists()


class Killed(BaseException):
    """Stands for SIGKILL between two moves."""


@pytest.mark.parametrize("moment", range(1, 6))
@pytest.mark.parametrize("end", [Killed, KeyboardInterrupt])
def test_a_report_stopped_while_it_is_put_in_place_is_made_whole(tmp_path, monkeypatch, moment, end):
    """Five moves: the finished folder, the notebooks, and three files."""
    output, built = tmp_path / "out", tmp_path / "out" / ".building"

    def report(generation):
        with files.scratch(built):
            (built / "notebooks").mkdir()
            for name in ("notebooks/a.ipynb", "results.json", "report.html", "report.pdf"):
                (built / name).write_text(generation)
            publish.put_all(built, output)

    report("first")
    replace, moves = files.replace, []

    def stop(source, target):
        moves.append(target)
        if len(moves) == moment:
            raise end
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", stop)
        with contextlib.suppress(end):
            report("second")
    publish.finish(output)  # as the next command does
    generation = "first" if moment == 1 else "second"  # the first move decides
    assert {path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {generation}
    assert sorted(path.name for path in output.iterdir()) == ["notebooks", "report.html", "report.pdf", "results.json"]


def test_readme_follows_a_report_that_was_put_in_place(tmp_path):
    """What somebody has written into it meanwhile stays."""
    readme, ready = tmp_path / "README.md", tmp_path / "out" / publish.READY
    ready.mkdir(parents=True)
    (ready / "results.json").write_text(json.dumps(RESULTS))
    readme.write_text("Mine.\n<!-- results -->\n<!-- /results -->\n")
    publish.finish(tmp_path / "out", readme)
    assert readme.read_text() == publish.updated_readme("Mine.\n<!-- results -->\n<!-- /results -->\n", RESULTS)
    publish.finish(tmp_path / "out", tmp_path / "nothing to finish")


def test_an_output_that_cannot_be_written_is_said_before_the_work(project, capsys):
    source, run, output = project
    source("01_slow", code("1 / 0"))
    output.write_text("a file")
    assert run() == 1
    says = capsys.readouterr().err
    assert str(output) in says and "was not replaced" in says and "ZeroDivisionError" not in says


def test_a_damaged_notebook_is_named(project, capsys):
    _, run, output = project
    (output.parent / "notebooks" / "01_bad.ipynb").write_text("{")
    assert run() == 1
    assert "01_bad.ipynb is not a notebook" in capsys.readouterr().err


def test_rendering_needs_executed_notebooks(project, capsys):
    assert project[1]("--render-only") == 1
    assert "run without --render-only first" in capsys.readouterr().err


def test_only_the_published_report_touches_readme(tmp_path, monkeypatch, project, capsys):
    _, run, _ = project
    monkeypatch.setattr(config, "ROOT", tmp_path)
    publish.META.write_text("".join(f"{name}: {text}\n" for name, text in META.items()))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results -->\n<!-- /results -->\n")

    def executed(profile, seed):
        settings = {"profile": profile, "seed": seed}
        folder = config.CACHE / "executed" / profile
        folder.mkdir(parents=True, exist_ok=True)
        first, second = record({"x": 1}, **settings), record(EVALUATION, **settings)
        nbformat.write(notebook("# Data", first), folder / "01_data.ipynb")
        nbformat.write(notebook("# Nets", record(FASTNET, **settings)), folder / "03_improved.ipynb")
        nbformat.write(notebook("# Scores", second), folder / "04_evaluation.ipynb")

    for profile, output, seed, refused, touched in (
        ("smoke", None, 0, False, False),
        ("full", "elsewhere", 0, False, False),
        ("smoke", "reports", 0, True, False),
        ("full", "reports", 1, True, False),  # the recorded settings count, not the option
        ("full", None, 0, False, True),
    ):
        executed(profile, seed)
        assert run("--render-only", profile=profile, output=output) == refused
        says = capsys.readouterr().err
        assert ("Not the published numbers" in says and "may not replace reports/" in says) == refused
        assert ("ImprovedNet" in readme.read_text()) == touched
        assert (tmp_path / "reports" / "report.html").exists() == touched
    assert "Not the published" not in (tmp_path / "reports" / "report.html").read_text()


# ---- Verification


def test_verify_runs_the_report_again_and_leaves_the_published_one(project, tmp_path, capsys):
    source, run, output = project
    source("01_good", "# Good", RECORD)
    assert run(profile="full") == 0
    before = everything(output)
    assert verify.verify(output, tmp_path / "notebooks", tmp_path / "again") == 3
    assert everything(output) == before and (tmp_path / "again/report/report.pdf").exists()

    source("01_good", "# Good", code("train_minutes = 2.001"), RECORD)
    says = r"1 published .*:\n01_good.x: published 2, computed 2.001\n.* is in .*again/report"
    with pytest.raises(verify.Disagreement, match=says):
        verify.verify(output, tmp_path / "notebooks", tmp_path / "again")
    source("01_good", "# Good", code("1 / 0"))
    with pytest.raises(ReportError, match="ZeroDivisionError(.|\n)*again/failed/01_good.ipynb"):
        verify.verify(output, tmp_path / "notebooks", tmp_path / "again")
    assert everything(output) == before


# ---- Other settings


BANNER = "Not the published numbers: profile smoke, seed 1, ImprovedNet.rotation = 15."


def test_other_settings_have_a_banner_in_every_format(project, tmp_path, monkeypatch):
    source, run, _ = project
    source("01_good", "# Good", RECORD)
    start = "from helpers import notebook\nnotebook.start(globals())\nnotebook.record(y=1)"
    source("02_more", "# More", code(start))
    sources = []
    convert = render.PDFReport.convert

    def keep(self, nb, folder):
        sources.append(self.typst_source(nb))
        return convert(self, nb, folder)

    monkeypatch.setattr(render.PDFReport, "convert", keep)
    assert run("--set", "ImprovedNet.rotation=15 seed=1", output=None) == 0
    made = tmp_path / "reports" / "custom"
    assert BANNER in " ".join((made / "report.html").read_text().split())
    assert (made / "report.html").read_text().count("Not the published") == 1
    assert BANNER in " ".join(sources[-1].replace("\\", "").split())
    for name in ("01_good", "02_more"):
        first = nbformat.read(made / "notebooks" / f"{name}.ipynb", as_version=4).cells[0]
        assert first.cell_type == "markdown" and first.source == f"> **{BANNER}**"
    assert [path.name for path in (config.CACHE / "executed").iterdir()] == ["custom"]
    values = json.loads((made / "results.json").read_text())
    assert values["02_more"]["settings"]["changes"] == {"ImprovedNet": {"rotation": 15}}


def test_the_published_settings_have_no_banner(project):
    source, run, output = project
    source("01_good", "# Good", RECORD)
    assert run(profile="full") == 0
    for path in output.rglob("*"):
        assert not path.is_file() or b"Not the published" not in path.read_bytes()


def test_a_change_in_one_notebook_alone_makes_no_report(project, capsys):
    source, run, output = project
    source("01_good", RECORD)
    source("02_other", code('changes = {"BaselineNet": {"epochs": 3}}'), RECORD)
    assert run(profile="full") == 1
    says = capsys.readouterr().err
    assert "01_good and 02_other ran with different settings: BaselineNet.epochs" in says
    assert not (output / "report.html").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("sedd=1", "unknown parameter 'sedd': choose from profile, seed, device, train_minutes, epochs"),
        ("epochs=many", "epochs must be a whole number of at least 0, not 'many'"),
        ("epochs=9999999", "epochs must lie between 0 and a million"),
        ("changes={}", "unknown parameter 'changes'"),
        ("seed", "--set takes settings like ImprovedNet.rotation=15 and seed=1, not 'seed'"),
        ("seed=", "--set takes settings like"),
        ("seed='1", "has a mistake: No closing quotation"),
        ("seed=1 seed=2", "seed is set twice"),
        ("seed=-1", "seed must be a whole number of at least 0, not -1"),
        ("seed=1.5", "seed must be a whole number of at least 0, not 1.5"),
        ("train_minutes=long", "train_minutes must be a number of at least 0, not 'long'"),
        ("profile=fast", "profile must be one of smoke, quick, full, not 'fast'"),
        ("device=tpu", "device must be "),
        ("BigNet.rotation=15", "unknown network 'BigNet'"),
        ("ImprovedNet.rotatoin=15", "unknown setting 'rotatoin'"),
        ("ImprovedNet.rotation=much", "rotation must be of type float, not 'much'"),
        ("ImprovedNet.flip=2", "flip must lie between 0 and 1, not 2"),
        ("ImprovedNet.=2", "unknown setting ''"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_runs(project, capsys, given, says):
    source, run, output = project
    source("01_slow", code("1 / 0"))
    assert run("--set", given) == 1
    message = capsys.readouterr().err
    assert says in message and message.count("\n") == 1 and not output.exists()


def test_settings_are_read_as_python_or_as_text():
    parse = __main__.parameters.parse
    assert parse("ImprovedNet.rotation=15 BaselineNet.schedule=constant seed=1 device='cpu'") == {
        "seed": 1,
        "device": "cpu",
        "changes": {"ImprovedNet": {"rotation": 15}, "BaselineNet": {"schedule": "constant"}},
    }
    assert parse("") == {}
    epochs = {"profile": "full", "epochs": 20, "changes": {"ImprovedNet": {"epochs": 3}}}
    assert __main__.parameters.check(epochs) == {
        "profile": "full",
        "seed": 0,
        "changes": {"BaselineNet": {"epochs": 20}, "ImprovedNet": {"epochs": 3}, "FastNet": {"epochs": 20}},
    }


def test_a_parameter_that_a_notebook_lacks_is_refused_before_any_runs(project, capsys):
    source, run, output = project
    source("01_good", code("1 / 0"))
    path = output.parent / "notebooks" / "02_bare.ipynb"
    nbformat.write(notebook(code("profile = 'full'", tags=["parameters"])), path)
    assert run("--train-minutes", "3") == 1
    says = capsys.readouterr().err
    assert "02_bare has no parameter 'train_minutes': its parameters cell sets profile." in says
    assert "ZeroDivisionError" not in says


class Terminal(io.StringIO):
    """Stands for a terminal."""

    def isatty(self):
        return True


def test_a_terminal_shows_how_many_cells_are_done(project, tmp_path, monkeypatch):
    source, _, _ = project
    source("01_good", code('print("epoch 1")'), RECORD)
    monkeypatch.setattr(sys, "stdout", Terminal())
    path = tmp_path / "notebooks" / "01_good.ipynb"
    execute.run(path, tmp_path / "done.ipynb", {"profile": "smoke"})
    printed = sys.stdout.getvalue()
    assert printed.startswith("01_good: 3 cells\n")
    assert re.search(r"\r01_good:  25%\|", printed)
    assert re.search(r"\r +\repoch 1\n", printed)  # on a line of its own
