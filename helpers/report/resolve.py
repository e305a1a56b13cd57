"""Numbers, captions, references and citations, put into executed notebooks as plain Markdown.

The notebooks that come out read well as they are (JupyterLab, GitHub), and the HTML and the PDF are rendered from
them. What an author may write:

    # Title <!-- #sec-x -->     $$ ... $$ <!-- #eq-x -->     : caption <!-- #tbl-x -->  (below a pipe table)
    #| label: fig-x      #| fig-cap: ...       #| fig-alt: ...     #| out-width: 80%      (code cells; also tbl-)
    @fig-x @tbl-x @eq-x @sec-x                 @key [@key] [see @key, p. 3; @other]

References and citations also work in captions and in computed text (an output of type text/markdown). A computed
caption is such an output that begins with ": ". `# Title <!-- .unnumbered -->` gives a heading without a number.
JupyterLab hides these comments; `{#sec-x}`, as Quarto writes it, means the same.

What only the HTML shows, in cells tagged `html-only`, has numbers of its own (Supplementary Figure S1), so that those
of the PDF have no gaps. render.py gathers these figures and tables in a supplement at the end of the HTML.
"""

import re
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field

from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat.v4 import new_markdown_cell, new_output

from . import ReportError

KINDS = {"fig": "Figure", "tbl": "Table", "eq": "Equation", "sec": "Section"}
NUMBERED_LEVELS = 3  # deeper headings carry no number
HTML_ONLY = "html-only"  # tag of a cell that the PDF leaves out
FIRST_PAGE = "first-page"  # tag of the cell whose figure opens the report, and so comes first in numbers

KEY = r"[A-Za-z](?:[\w:-]*\w)?"
FENCED = r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^(?P=fence)[ \t]*$"
INLINE_CODE = r"(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)(?:[ \t]*\{([#.-][^{}]*)\})?[ \t]*$", re.M)
EQUATION = re.compile(r"\$\$((?:(?!\$\$).)+)\$\$(?:[ \t]*\{#(eq-[\w-]+)\})?", re.S)
PIPE_TABLE = re.compile(r"((?:^\|.*\n)+)\s*^:[ \t]+((?:.|\n(?!\n))+?)\s*\{#(tbl-[\w-]+)\}[ \t]*$", re.M)
# Everything else in angle brackets is text, such as <your name>, which a browser would take for HTML and hide.
HTML_TAGS = set(
    "a abbr b big blockquote br center code del details div em font h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p "
    "pre s small span strike strong sub summary sup table tbody td tfoot th thead tr tt u ul var wbr".split()
)
TAG = r"<(?=/?(?P<tag>[A-Za-z][\w-]*)(?:[\s/][^<>]*)?>)"
ANGLES = re.compile(rf"(?P<code>{FENCED}|{INLINE_CODE}|\$[^$]+\$)|{TAG}", re.M | re.S)
IN_COMMENT = re.compile(r"<!--\s*([#.-][^<>]*?)\s*-->")
LEFT_OVER = re.compile(r"\{#(?:fig|tbl|eq|sec)-[\w-]+\}")
REFERENCE = re.compile(
    rf"(?P<code>{FENCED}|{INLINE_CODE})|\[(?P<group>[^\[\]]*?@[^\[\]]*)\](?!\()|(?<![\w/.@\\])@(?P<key>{KEY})",
    re.M | re.S,
)
GROUP_ITEM = re.compile(rf"\s*(?P<before>[^@]*?)\s*@(?P<key>{KEY})(?P<after>.*)", re.S)


@dataclass(frozen=True)
class Target:
    """What a label stands for: "Figure", its number as printed ("3" or "S3"), and the notebook that holds it."""

    kind: str
    number: str
    notebook: str


@dataclass
class Register:
    """The numbers given so far."""

    targets: dict = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    levels: list = field(default_factory=lambda: [0] * NUMBERED_LEVELS)

    def count(self, label, notebook, extra=False):
        """Give the next number of its kind to a figure, table or equation, of its own series if it is `extra`.

        Returns it with its kind: "Figure 3" or "Supplementary Figure S3".
        """
        kind, series = label.split("-")[0], "S" if extra else ""
        self.counts[kind, series] += 1
        target = self.add(label, f"{series}{self.counts[kind, series]}", notebook, extra)
        return f"{target.kind} {target.number}"

    def heading(self, level):
        """The number of the next heading of this level, such as "2.1"; empty for a deep one."""
        if level > NUMBERED_LEVELS:
            return ""
        self.levels[level - 1] += 1
        self.levels[level:] = [0] * (NUMBERED_LEVELS - level)
        return ".".join(map(str, self.levels[:level]))

    def add(self, label, number, notebook, extra=False):
        if label in self.targets:
            raise ReportError(f"{notebook}: the label {label} is already used in {self.targets[label].notebook}.")
        kind = KINDS[label.split("-")[0]]
        self.targets[label] = Target(f"Supplementary {kind}" if extra else kind, number, notebook)
        return self.targets[label]


def resolve(notebooks, works):
    """Resolve {name: executed notebook} in report order, with `works` {key: bibliography.Work}.

    Returns {name: new notebook}; the given ones are left alone. Raises ReportError naming the notebook and the
    label for an unknown reference or citation, a duplicate label, or a label without its figure, table or caption.
    """
    register = Register()
    resolved = {name: clean(notebook) for name, notebook in notebooks.items()}
    cells = [(name, cell) for name, notebook in resolved.items() for cell in notebook.cells]
    for name, cell in sorted(cells, key=lambda pair: not has_tag(pair[1], FIRST_PAGE)):
        if cell.cell_type == "code":
            _define_cell(cell, register, name)
        elif cell.cell_type == "markdown":
            cell.source = _literal_angles(cell.source)
            _define_text(cell, register, name)
    for name, notebook in resolved.items():
        cited: set[str] = set()
        for cell in notebook.cells:
            _refer_cell(cell, register.targets, works, name, cited)
        notebook.cells = list(_for_readers(notebook.cells))
        if cited:
            notebook.cells.append(_reference_list(cited, works))
        _number_cells(notebook, name)
    return resolved


def clean(notebook):
    """A copy without what is not for readers: papermill's notes, terminal codes, and stderr, for which a line stands.

    What notebook.record emitted moves from the outputs to the metadata of the notebook, "results". The banner of
    notebook.start goes, since add_banner puts one on top, and so does the cell that papermill has put in.
    """
    notebook = deepcopy(notebook)
    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, "injected-parameters")]
    records = []
    for index, cell in enumerate(notebook.cells):
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            table = f"T{index}"
            records += [output.data["application/json"] for output in cell.outputs if is_record(output)]
            on_stderr = "".join(output.text for output in cell.outputs if output.get("name") == "stderr")
            cell.outputs = [output for output in cell.outputs if not _is_left_out(output)]
            if lines := len(on_stderr.strip().splitlines()):
                says = f"[{lines:,} {'lines' if lines > 1 else 'line'} of warnings or progress left out]\n"
                cell.outputs.append(new_output("stream", text=says))
            for output in cell.outputs:
                for mime, text in output.get("data", {}).items():
                    if mime in ("text/html", "text/plain"):  # pandas' random table ids, and addresses in memory
                        output.data[mime] = re.sub(r"\bT_[0-9a-f]{5}", table, re.sub(r" at 0x[0-9a-f]+", "", text))
                if output.output_type == "stream":
                    output.text = _as_on_a_terminal(output.text)
                elif output.output_type == "error":  # of a cell tagged raises-exception; a traceback names local files
                    output.traceback = [f"{output.ename}: {output.evalue}"]
    if records:
        notebook.metadata["results"] = records
    return notebook


def _as_on_a_terminal(text):
    """Printed text without colours, and without what a carriage return or a control character has wiped out."""
    text = re.sub(r"[^\n]*\r(?!\n)", "", strip_ansi(text).replace("\r\n", "\n"))
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)


def _literal_angles(text):
    """A Markdown text in which angle brackets that are no HTML are seen."""
    return ANGLES.sub(lambda m: m[0] if m["code"] or m["tag"].lower() in HTML_TAGS else "\\<", text)


def is_record(output):
    """Whether an output is one of notebook.record: numbers for results.json, nothing to look at."""
    return bool(output.get("metadata", {}).get("results")) and "application/json" in output.get("data", {})


def _is_left_out(output):
    return output.get("name") == "stderr" or is_record(output) or "banner" in output.get("metadata", {})


def add_banner(notebooks, text):
    """Put a text that warns the reader on top of each resolved notebook."""
    for name, notebook in notebooks.items():
        cell = new_markdown_cell(f"> **{text}**", id=f"{name}-0", metadata={"report": {"banner": True}})
        notebook.cells.insert(0, cell)


def cell_options(source):
    """Split a code cell into its `#| key: value` options and the code: (dict, str).

    A value may go on in further `#|` lines that are indented.
    """
    options, code, key = {}, [], None
    for line in source.splitlines():
        option = re.match(r"#\|\s?(?:([\w-]+):)?\s*(.*?)\s*$", line)
        if not option:
            code.append(line)
        elif option[1]:
            key, options[option[1]] = option[1], option[2]
        elif key:
            options[key] = f"{options[key]} {option[2]}".strip()
    options = {k: re.sub(r"""^(["'])(.*)\1$""", r"\2", v) for k, v in options.items()}
    return options, "\n".join(code).strip("\n")


# First pass: give numbers, make captions visible, leave an anchor before everything that has a label.


def _anchor(label):
    return f'<a id="{label}"></a>'


def has_tag(cell, tag):
    """Whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def _define_text(cell, register, notebook):
    """Number what a Markdown cell holds; one with a table that only the HTML shows goes to the supplement."""
    extra = has_tag(cell, HTML_ONLY)
    if extra and PIPE_TABLE.search(cell.source):
        cell.metadata["report"] = {"supplement": True}
    cell.source = _define(cell.source, register, notebook, extra)


def _define(text, register, notebook, extra=False):
    """Number the headings, equations and captioned pipe tables of one Markdown text; extra: only the HTML shows it."""

    def heading(match):
        hashes, title, attributes = match[1], match[2], match[3] or ""
        unnumbered = extra or "-" in attributes.split() or ".unnumbered" in attributes
        number = "" if unnumbered else register.heading(len(hashes))
        label = re.search(r"#(sec-[\w-]+)", attributes)
        if label and extra:
            number = register.count(label[1], notebook, extra).split()[-1]
        elif label and number:
            register.add(label[1], number, notebook)
        elif label:
            raise ReportError(f"{notebook}: the heading {label[1]} has a label but no number to refer to.")
        line = f"{hashes} {number} {title}" if number else f"{hashes} {title}"
        return f"{_anchor(label[1])}\n\n{line}" if label else line

    def equation(match):
        body, label = match[1], match[2]
        if not label:
            return match[0]
        number = register.count(label, notebook, extra).split()[-1]
        return f"\n\n{_anchor(label)}\n\n$$\n{body.strip()} \\tag{{{number}}}\n$$\n\n"

    def table(match):
        rows, caption, label = match[1], match[2], match[3]
        number = register.count(label, notebook, extra)
        return f"{_anchor(label)}\n\n{rows}\n**{number}.** {caption.strip()}"

    def define(part):
        part = IN_COMMENT.sub(r"{\1}", part)
        part = PIPE_TABLE.sub(table, EQUATION.sub(equation, HEADING.sub(heading, part)))
        if left := LEFT_OVER.search(part):
            raise ReportError(f"{notebook}: {left[0]} does not follow a heading, an equation or a table caption.")
        return re.sub(r"\n{3,}", "\n\n", part)

    parts, end = [], 0
    for code in re.finditer(FENCED, text, re.M | re.S):
        parts += [define(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, define(text[end:])]).strip("\n")


def _define_cell(cell, register, notebook):
    """Number the figure or table of a code cell and put anchor and caption around its outputs."""
    options, cell.source = cell_options(cell.source)
    extra = has_tag(cell, HTML_ONLY)
    label = options.get("label", "")
    kind = label.split("-")[0]
    if kind in ("fig", "tbl") and "-" in label:
        mine = [i for i, output in enumerate(cell.outputs) if _shows(kind, output)]
        caption, spoken = _caption(cell, options, kind)
        if not mine or not caption:
            lacks = f"shows no {KINDS[kind].lower()}" if not mine else f"has no {kind}-cap"
            raise ReportError(f"{notebook}: the cell {label} {lacks}.")
        number = register.count(label, notebook, extra)
        before = [o for i, o in enumerate(cell.outputs) if i < mine[0] and i != spoken]
        after = [o for i, o in enumerate(cell.outputs) if i > mine[0] and i not in mine and i != spoken]
        says = [options.get("fig-alt"), *(cell.outputs[i].get("metadata", {}).get("alt") for i in mine)]
        cell.outputs = [
            *before,
            _markdown_output(_anchor(label)),
            *(cell.outputs[i] for i in mine),
            _markdown_output(f"**{number}.** {caption}"),
            *after,
        ]
        shown = {"alt": " ".join(filter(None, says)), "width": options.get("out-width"), "supplement": extra}
        cell.metadata["report"] = {"label": label, **{k: v for k, v in shown.items() if v}}
    for output in cell.outputs:
        if "text/markdown" in output.get("data", {}):
            text = _literal_angles(output.data["text/markdown"])
            output.data["text/markdown"] = _define(text, register, notebook, extra)


def _caption(cell, options, kind):
    """The caption and, when it is computed (a Markdown output that begins with ": "), the index of its output."""
    for i, output in enumerate(cell.outputs):
        text = output.get("data", {}).get("text/markdown", "")
        if text.startswith(": "):
            return text[2:].strip(), i
    return options.get(f"{kind}-cap"), None


def _shows(kind, output):
    data = output.get("data", {})
    if kind == "fig":
        return any(mime.startswith("image/") for mime in data)
    return "<table" in data.get("text/html", "") or data.get("text/markdown", "").lstrip().startswith("|")


def _markdown_output(text):
    return new_output("display_data", {"text/markdown": text, "text/plain": re.sub(r"<[^>]+>", "", text)})


# Second pass: every number is known, so references and citations become text with links.


def _refer_cell(cell, targets, works, notebook, cited):
    if cell.cell_type == "markdown":
        cell.source = _refer(cell.source, targets, works, notebook, cited)
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "text/markdown" in data:
            data["text/markdown"] = _refer(data["text/markdown"], targets, works, notebook, cited)
            data["text/plain"] = re.sub(r"<[^>]+>", "", data["text/markdown"])


def _refer(text, targets, works, notebook, cited):
    """Replace the references and citations of one Markdown text; adds the cited keys to `cited`."""

    def work(key):
        if key not in works:
            raise ReportError(f"{notebook}: unknown citation @{key}: it is not in refs.bib (code goes in backticks).")
        cited.add(key)
        return works[key]

    def reference(label):
        target = targets.get(label)
        if not target:
            raise ReportError(f"{notebook}: unknown reference @{label}.")
        file = "" if target.notebook == notebook else f"{target.notebook}.ipynb"
        return f"[{target.kind}\u00a0{target.number}]({file}#{label})"

    def is_reference(key):
        return key.split("-")[0] in KINDS and "-" in key

    def group(match):  # [see @a, p. 3; @b] or [@fig-x; @fig-y]
        parts = match["group"].split(";")
        items = [item for part in parts if (item := GROUP_ITEM.fullmatch(part))]
        if len(items) < len(parts):
            return f"[{REFERENCE.sub(replace, match['group'])}]"
        if all(is_reference(item["key"]) for item in items):
            return ", ".join(f"{i['before']} {reference(i['key'])}{i['after']}".strip() for i in items)
        texts = []
        for item in items:
            cite = work(item["key"])
            link = f"[{cite.authors}, {cite.year}](#ref-{item['key']})"
            texts.append(f"{item['before']} {link}{item['after']}".strip())
        return f"({'; '.join(texts)})"

    def replace(match):
        if match["code"]:
            return match["code"]
        if match["group"]:
            return group(match)
        key = match["key"]
        if is_reference(key):
            return reference(key)
        return f"[{work(key).authors} ({work(key).year})](#ref-{key})"

    return REFERENCE.sub(replace, text)


def _for_readers(cells):
    """The cells with computed text, whose code is not shown, as Markdown; without code that neither is nor shows."""
    for cell in cells:
        if cell.cell_type == "code" and has_tag(cell, "remove-input"):
            texts = [output.get("data", {}).get("text/markdown") for output in cell.outputs]
            if all(texts):
                if texts:
                    yield new_markdown_cell("\n\n".join(texts), metadata=cell.metadata)
                continue
            cell.metadata["jupyter"] = {"source_hidden": True}
        yield cell


def _reference_list(cited, works):
    """The last cell: one paragraph for each cited work. render.py gathers them from all notebooks."""
    entries = sorted(f"{works[key].entry}\n{key}" for key in cited)
    lines = [f"{_anchor('ref-' + key)}{entry}" for entry, key in (line.split("\n") for line in entries)]
    cell = new_markdown_cell("\n\n".join(["## References", *lines]))
    cell.metadata["report"] = {"references": True}
    return cell


def _number_cells(notebook, name):
    """Cell ids and execution counts that depend on nothing but the order of the cells."""
    count = 0
    for index, cell in enumerate(notebook.cells, start=1):
        cell.id = f"{name}-{index}"
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
