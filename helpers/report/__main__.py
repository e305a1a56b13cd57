"""The command line: `python -m helpers.report --profile full`."""

import argparse
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat

from helpers import config, files, notebook
from helpers.errors import exit_cleanly

from . import ReportError, bibliography, execute, parameters, publish, rehearsal, render
from .resolve import add_banner, resolve

REPORTS = config.ROOT / "reports"


def main(arguments=None):
    """Make a report."""
    stopped = "Stopped; the same command starts again, a training after its last finished epoch."
    start = time.monotonic()
    with exit_cleanly(stopped):
        options = _options(arguments)
        given = _parameters(options)
        settings = parameters.check(given)
        kind = "custom" if options.set else given["profile"]
        output = (options.output or (REPORTS if kind == "full" else REPORTS / kind)).resolve()
    published = output == REPORTS
    readme = config.ROOT / "README.md" if published else None
    executed = config.CACHE / "executed" / kind
    with (
        exit_cleanly(stopped, after=f"The report in {_short(output)} was not replaced."),
        files.locked(config.CACHE / "report.lock", "making a report here"),
    ):
        if published:
            _refuse(notebook.banner(settings))
        publish.finish(output, readme)
        # first, to learn now whether it can be written
        with files.scratch(output / ".building") as built:
            if not options.render_only:
                run_all(options.notebooks, executed, output, given)
            build(executed, built, readme)
            publish.put_all(built, output, readme)
    total = time.monotonic() - start
    pages = render.page_count((output / "report.pdf").read_bytes())
    made = f"{_short(output / 'report.html')}  {_short(output / 'report.pdf')} ({pages} pages)"
    print(f"total  {total:.0f} s: {made}")
    if says := publish.verdict(publish.read_results(output / "results.json")):
        print(says)


def run_all(notebooks, executed, output, given):
    """Execute every notebook source of a folder with the given parameters.

    Only when all have succeeded do they become the folder `executed`. On an error the partly
    executed notebook is kept as output/failed/NAME.ipynb and ReportError is raised.
    """
    sources = execute.sources(notebooks)
    for source in sources:  # all before the first of them runs
        execute.check(source, given)
    with _stage("sources checked"):
        rehearsal.rehearse(sources)
    with files.scratch(executed.with_name(f".running-{executed.name}")) as running:
        for source in sources:
            with _stage(source.stem):
                try:
                    execute.run(source, running / source.name, given)
                except ReportError as error:
                    if not (running / source.name).exists():
                        raise
                    failed = output / "failed" / source.name
                    files.write(failed, (running / source.name).read_bytes())
                    raise ReportError(f"{error}\nAs far as it got: {_short(failed)}") from None
        files.replace(running, executed)


def build(executed, built, readme=None):
    """Resolve and render executed notebooks into the folder `built`.

    With a README, the report is the published one: it must have the published settings, and the
    README must take its numbers.
    """
    names = sorted(executed.glob("*.ipynb"))
    if not names:
        raise ReportError(f"{_short(executed)} holds no executed notebooks: run without --render-only first.")
    notebooks = {path.stem: execute.read(path) for path in names}
    with _stage("numbers and references"):
        resolved = resolve(notebooks, bibliography.load())
        values = publish.results(resolved)
        banner = notebook.banner(publish.settings(values))
        if readme:
            _refuse(banner)
            publish.updated_readme(readme.read_text(encoding="utf-8"), values)
        if banner:
            add_banner(resolved, banner)
        meta = publish.metadata(values, publish.META, banner)
        (built / "notebooks").mkdir()
        for name, nb in resolved.items():
            files.write(built / "notebooks" / f"{name}.ipynb", nbformat.writes(nb) + "\n")
        files.write(built / "results.json", publish.dump(values))
    whole = render.join(resolved.values())
    html, pdf = render.HTMLReport(meta=meta), render.PDFReport(meta=meta)
    for exporter in (html, pdf):
        with _stage(f"report{exporter.file_extension}"):
            page, _ = exporter.from_notebook_node(whole)
            for note in exporter.notes:
                print(f"  note: {note}")
            files.write(built / f"report{exporter.file_extension}", page)
    if readme:
        files.write(built / "preview.png", pdf.preview)


def _refuse(banner):
    """Keep a report with a banner out of reports/."""
    if banner:
        raise ReportError(f"{banner} They may not replace reports/: choose another --output.")


def _options(arguments):
    parser = argparse.ArgumentParser(prog="python -m helpers.report", description="Run the notebooks, make the report.")
    add = parser.add_argument
    add("--profile", choices=config.PROFILES, default="full")
    custom = 'other settings, as in "ImprovedNet.rotation=15 seed=1"; goes to reports/custom'
    add("--set", metavar="SETTINGS", default="", help=custom)
    longest = "longest training that a notebook may start"
    add("--train-minutes", type=float, metavar="N", help=longest)
    add("--output", type=Path, metavar="DIR", help="default: reports/, or reports/PROFILE")
    add("--notebooks", type=Path, metavar="DIR", default=config.ROOT / "notebooks")
    rendered = "use the notebooks executed last, run nothing"
    add("--render-only", action="store_true", help=rendered)
    options = parser.parse_args(arguments)
    options.set = options.set.strip()
    return options


def _parameters(options):
    """The parameters that notebooks get."""
    given = {"profile": options.profile}
    if options.train_minutes is not None:
        given["train_minutes"] = options.train_minutes
    return given | parameters.parse(options.set)


@contextmanager
def _stage(name):
    start = time.monotonic()
    yield
    print(f"{name}  {time.monotonic() - start:.0f} s", flush=True)


def _short(path):
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
