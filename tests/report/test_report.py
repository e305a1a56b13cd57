"""The road from executed notebooks to the report, on two notebooks of a few cells."""

import base64
import contextlib
import json
import re
import sys
from copy import deepcopy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import config, files
from helpers.commands import verify
from helpers.report import ReportError, __main__, bibliography, publish, render
from helpers.report.resolve import cell_options, resolve

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
    )
).decode()
NUMBERS = {
    "accuracy": 0.7, "accuracy_low": 0.69, "accuracy_high": 0.71,
    "macro_f1": 0.7, "nll": 0.9, "ece": 0.02, "brier": 0.4,
}
RESULTS = {
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


def shown(data, **metadata):
    return new_output("display_data", data, metadata=metadata)


def code(source, *outputs, tags=()):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)} if tags else {})


def notebook(*cells):
    return new_notebook(cells=[new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells])


@pytest.fixture
def pair():
    """Two executed notebooks with one of everything."""
    image = shown({"image/png": PIXEL})
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
        code("record()", shown({"application/json": {"a": {"b": 1 / 3}}, "text/plain": "RECORDED"}, results=True)),
    )
    second = notebook(
        "# Model {#sec-model}\n\nBy $$ a = b $$ {#eq-ab} and @eq-ab, `@property` in @sec-data.",
        new_markdown_cell("## Aside {#sec-aside}\n\nBROWSER, see @fig-early.", metadata={"tags": ["html-only"]}),
        code("#| label: fig-late\n#| fig-cap: Late.\n#| fig-alt: a [grey] dot\nplot()", image),
        code("#| label: tbl-frame\n#| tbl-cap: A frame.\nframe", table),
        code("say()", shown({"text/markdown": "Computed: @fig-late, @tbl-pipe, @sec-aside."}), tags=["remove-input"]),
        code("#| label: tbl-said\nframe", table, shown({"text/markdown": ": Computed caption."})),
        code("record()", shown({"application/json": {"a": {"c": 2}}}, results=True)),
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
    assert "<figcaption><strong>Figure 1.</strong> Early" in page and 'alt="a [grey] dot"' in page
    assert re.search(r'<table id="tbl-frame">\s*<caption><strong>Table 2.</strong>', page)
    assert '<details class="code" open>' in page and "<math" in page and "\\tag" not in page
    assert page.count(">References</h1>") == 1 and page.count('id="ref-he2016"') == 1
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'id="([^"]+)"', page)) and "fig-late" in links
    assert not re.search(r'(src|href)="(?!#|data:|https://doi.org/)', page)
    assert page == exporter.from_notebook_node(render.join(resolved.values()))[0]


def test_pdf_leaves_out_code_and_what_is_for_the_browser(resolved):
    exporter = render.PDFReport(meta={**META, "pagetitle": "T", "banner": ""})
    whole = render.join(resolved.values())
    source = exporter.typst_source(whole)
    assert "BROWSER" not in source and "FOLDED" not in source and "print(1)" not in source
    assert source.count("plot()") == 1  # show-code
    assert re.search(r"Section.2\.1 \(HTML version\)", source) and "<sec-aside>" not in source
    assert 'image("image-1.png", width: 40%' in source and 'alt: "a [grey] dot"' in source and "<tbl-frame>" in source
    pdf, _ = exporter.from_notebook_node(whole)
    assert pdf.startswith(b"%PDF") and render.page_count(pdf) == pdf.count(b"/MediaBox")
    assert pdf == exporter.from_notebook_node(whole)[0]


def test_only_a_long_table_may_break_over_pages():
    def source(rows):
        pipe = "| a |\n|---|\n" + "| x |\n" * rows + "\n: Rows. {#tbl-rows}"
        whole = render.join(resolve({"01_a": notebook(pipe)}, {}).values())
        return render.PDFReport(meta={**META, "pagetitle": "T", "banner": ""}).typst_source(whole)

    assert "breakable: true" not in source(5) and "breakable: true" in source(40)


def test_results_are_merged_and_rounded(pair):
    assert publish.results(resolve(pair, bibliography.load()).values()) == {"a": {"b": 0.333333, "c": 2}}
    assert publish.merge({"a": {"b": 1}}, {"a": {"b": 2}, "d": 3}) == {"a": {"b": 2}, "d": 3}
    assert publish.dump({"b": 1, "a": 2}) == '{\n  "a": 2,\n  "b": 1\n}\n'
    with pytest.raises(ReportError, match="nan"):
        nan = notebook(code("", shown({"application/json": {"a": float("nan")}}, results=True)))
        publish.results(resolve({"01_a": nan}, {}).values())


def test_readme_block_is_replaced_and_nothing_else():
    text = "before\n<!-- results -->\nold\n<!-- /results -->\nafter\n"
    new = publish.updated_readme(text, RESULTS)
    assert new.startswith("before\n<!-- results -->\n| | BaselineNet | ImprovedNet |\n| --- | ---: | ---: |\n")
    assert "| Test accuracy | 70.00% [69.00%, 71.00%] | 90.00% [69.00%, 71.00%] |\n" in new
    assert "| (70.00 ± 0.30)%, 5 seeds of 60 epochs | (88.00 ± 0.21)%, 3 seeds of 15 epochs |\n" in new
    assert "| 0.900 | 0.900 |" in new and "| Training time | 8 min | 2 h 38 min |" in new
    assert new.endswith("\n<!-- /results -->\nafter\n") and "old" not in new
    assert publish.updated_readme(new, RESULTS) == new
    with pytest.raises(ValueError, match="README.md has no block"):
        publish.updated_readme("nothing", RESULTS)
    with pytest.raises(ReportError, match="needs 'runs'"):
        publish.readme_table({"test": RESULTS["test"]})


def test_abstract_is_filled_and_a_missing_number_is_named(tmp_path):
    path = tmp_path / "meta.yaml"
    path.write_text('title: T\ndate: "{date}"\nabstract: "{test[ImprovedNet][accuracy]:.1%} in ${{a}}$"\n')
    filled = publish.metadata(RESULTS, "quick", path)
    assert filled["abstract"] == "90.0% in ${a}$" and filled["date"] == "22 November 2026"
    assert "Profile quick" in filled["banner"] and publish.metadata(RESULTS, "full", path)["banner"] == ""
    with pytest.raises(ReportError, match=r"meta.yaml: abstract asks for \{test\[ImprovedNet\]\[accuracy\]\}"):
        publish.metadata({"test": {}}, "full", path)


def status(*arguments):
    """Run the command; its exit status, with the last words where Python prints them."""
    try:
        __main__.main(arguments)
    except SystemExit as end:
        print(end.code, file=sys.stderr)
        return 1 if isinstance(end.code, str) else end.code
    return 0


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of notebook sources, a simple meta.yaml, and the command line that uses them."""
    (tmp_path / "notebooks").mkdir()
    meta = tmp_path / "meta.yaml"
    meta.write_text('title: T\nsubtitle: S\ndate: D\nlang: en-GB\nabstract: "x = {x}"\nprovenance: P\n')
    monkeypatch.setattr(publish, "META", meta)
    monkeypatch.chdir(tmp_path)

    def source(name, *cells):
        nbformat.write(notebook(*cells), tmp_path / "notebooks" / f"{name}.ipynb")

    def run(*options):
        return status("--profile", "smoke", "--notebooks", "notebooks", "--output", "out", *options)

    return source, run, tmp_path / "out"


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_failing_notebook_leaves_the_last_report_whole(project, capfd):
    source, run, output = project
    record = 'display({"application/json": {"x": minutes}}, raw=True, metadata={"results": True})'
    parameters = code('profile = "full"\nminutes: float = 1', tags=["parameters"])
    source("01_good", parameters, code('print("epoch 1", profile)'), code(record))
    assert run() == 0
    printed = capfd.readouterr().out
    assert re.match(r"epoch 1 smoke\n01_good  \d+ s\n", printed) and "report.pdf (1 pages)" in printed
    good = everything(output)
    assert set(good) == {"notebooks/01_good.ipynb", "report.html", "report.pdf", "results.json"}
    assert json.loads(good["results.json"]) == {"x": 1}
    assert str(output.parent).encode() not in b"".join(good.values())

    source("02_bad", code("#| label: fig-bad\n1 / 0"))
    assert run() == 1
    message = capfd.readouterr().err.strip().splitlines()
    assert "02_bad failed in cell fig-bad (In [2])" in message and "  ZeroDivisionError: division by zero" in message
    assert len(message) <= 5 and any("out/failed/02_bad.ipynb" in line for line in message)
    assert set(everything(output)) == set(good) | {"failed/02_bad.ipynb"}
    assert all((output / name).read_bytes() == content for name, content in good.items())

    assert run("--render-only") == 0  # what was executed before the failure, the same bytes; the failure is forgotten
    assert everything(output) == good
    assert [path.name for path in (config.CACHE / "executed").iterdir()] == ["smoke"]


def test_two_reports_are_not_made_at_once(project, capsys):
    pytest.importorskip("fcntl")
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


def test_only_the_published_report_touches_readme_once_its_numbers_verify(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.setattr(__main__, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(__main__, "DEFAULT_OUTPUT", {"full": tmp_path / "reports", "smoke": tmp_path / "reports/smoke"})
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results -->\n<!-- /results -->\n")
    pair["01_data"].cells.append(code("", shown({"application/json": RESULTS}, results=True)))
    monkeypatch.setattr(publish, "META", tmp_path / "meta.yaml")
    publish.META.write_text("".join(f"{name}: {text}\n" for name, text in META.items()))
    elsewhere = ["--output", str(tmp_path / "elsewhere")]

    def check(values, everything):
        assert everything  # nothing was run, so the notebooks may be old
        if not verified:
            raise verify.Disagreement("1 published numbers do not verify")

    monkeypatch.setattr(verify, "check", check)
    for profile, other, verified, touched in (
        ("smoke", [], False, False), ("full", elsewhere, False, False),
        ("full", [], False, False), ("full", [], True, True),
    ):
        executed = config.CACHE / "executed" / profile
        executed.mkdir(parents=True, exist_ok=True)
        for name, nb in pair.items():
            nbformat.write(nb, executed / f"{name}.ipynb")
        failed = profile == "full" and not other and not verified
        assert status("--profile", profile, "--render-only", *other) == failed
        assert ("do not verify" in capsys.readouterr().err) == failed
        assert ("ImprovedNet" in readme.read_text()) == touched
        assert (tmp_path / "reports" / "report.html").exists() == touched
