"""The command line: `python -m helpers.report --profile full`."""

import argparse
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat

from helpers import config, files
from helpers.commands import verify
from helpers.errors import exit_cleanly

from . import ReportError, bibliography, execute, publish, render
from .resolve import resolve

REPORTS = config.ROOT / "reports"
DEFAULT_OUTPUT = {profile: REPORTS if profile == "full" else REPORTS / profile for profile in config.PROFILES}


def main(arguments=None):
    """Make a report."""
    options = _options(arguments)
    output = (options.output or DEFAULT_OUTPUT[options.profile]).resolve()
    executed = config.CACHE / "executed" / options.profile
    published = options.profile == "full" and output == REPORTS
    readme = config.ROOT / "README.md" if published else None
    stopped = "Stopped; the same command starts again, and a training after its last finished epoch."
    start = time.monotonic()
    with (
        exit_cleanly(stopped, after=f"The report in {_short(output)} was not replaced."),
        files.locked(config.CACHE / "report.lock", "making a report here"),
    ):
        publish.finish(output, readme)
        with files.scratch(output / ".building") as built:  # first, to learn now whether it can be written
            if not options.render_only:
                run_all(options.notebooks, executed, output, options.profile, options.train_minutes)
            build(executed, built, options.profile, readme, just_run=not options.render_only)
            publish.put_all(built, output, readme)
    total = time.monotonic() - start
    pages = render.page_count((output / "report.pdf").read_bytes())
    print(f"total  {total:.0f} s: {_short(output / 'report.html')}  {_short(output / 'report.pdf')} ({pages} pages)")


def run_all(notebooks, executed, output, profile, train_minutes=None):
    """Execute every notebook source of a folder; only when all have succeeded do they become the folder `executed`.

    On an error the partly executed notebook is kept as output/failed/NAME.ipynb and ReportError is raised.
    """
    parameters = {"profile": profile} | ({} if train_minutes is None else {"train_minutes": train_minutes})
    with files.scratch(executed.with_name(f".running-{executed.name}")) as running:
        for source in execute.sources(notebooks):
            with _stage(source.stem):
                try:
                    execute.run(source, running / source.name, parameters)
                except ReportError as error:
                    if not (running / source.name).exists():
                        raise
                    failed = output / "failed" / source.name
                    files.write(failed, (running / source.name).read_bytes())
                    raise ReportError(f"{error}\nAs far as it got: {_short(failed)}") from None
        files.replace(running, executed)


def build(executed, built, profile, readme=None, just_run=False):
    """Resolve, verify and render executed notebooks into the folder `built`.

    With a README, the report is the published one: its numbers must verify, and the README must take them.
    """
    names = sorted(executed.glob("*.ipynb"))
    if not names:
        raise ReportError(f"{_short(executed)} holds no executed notebooks: run without --render-only first.")
    notebooks = {path.stem: execute.read(path) for path in names}
    with _stage("numbers and references"):
        resolved = resolve(notebooks, bibliography.load())
        values = publish.results(resolved.values())
        meta = publish.metadata(values, profile, publish.META)
        (built / "notebooks").mkdir()
        for name, notebook in resolved.items():
            files.write(built / "notebooks" / f"{name}.ipynb", nbformat.writes(notebook) + "\n")
        files.write(built / "results.json", publish.dump(values))
    if readme:
        publish.updated_readme(readme.read_text(encoding="utf-8"), values)
        with _stage("verification"):
            verify.check(values, everything=not just_run)
    whole = render.join(resolved.values())
    for exporter in (render.HTMLReport(meta=meta), render.PDFReport(meta=meta)):
        with _stage(f"report{exporter.file_extension}"):
            page, _ = exporter.from_notebook_node(whole)
            files.write(built / f"report{exporter.file_extension}", page)
    if readme:
        pages, _ = render.Preview(meta=meta).from_notebook_node(whole)
        files.write(built / "preview.png", pages[0])


def _options(arguments):
    parser = argparse.ArgumentParser(prog="python -m helpers.report", description="Run the notebooks, make the report.")
    parser.add_argument("--profile", choices=config.PROFILES, default="full")
    parser.add_argument("--train-minutes", type=float, metavar="N", help="longest training a notebook may start")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: reports/, or reports/PROFILE")
    parser.add_argument("--notebooks", type=Path, metavar="DIR", default=config.ROOT / "notebooks")
    parser.add_argument("--render-only", action="store_true", help="use the notebooks executed last, run nothing")
    options = parser.parse_args(arguments)
    if options.profile != "full" and options.output and options.output.resolve() == REPORTS:
        parser.error(f"profile {options.profile} may not replace the published report: choose another --output.")
    return options


@contextmanager
def _stage(name):
    start = time.monotonic()
    yield
    print(f"{name}  {time.monotonic() - start:.0f} s", flush=True)


def _short(path):
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
