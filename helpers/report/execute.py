"""Runs notebook sources with papermill."""

import ast
import os
import sys
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from helpers import files

from . import ReportError, images
from .resolve import cell_options


def sources(folder):
    """The notebook sources `NN_name.ipynb` of a folder, in the order in which they run.

    Raises ReportError when there is none.
    """
    found = sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise ReportError(f"{folder} holds no notebook named like 01_data.ipynb: name the folder with --notebooks.")
    return found


def read(path):
    """A notebook file. Raises ReportError if it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except ValueError as error:
        raise ReportError(f"{path} is not a notebook ({type(error).__name__}).") from None


def check(source, parameters):
    """Raise ReportError naming a parameter that the notebook lacks: papermill only warns."""
    cells = [cell for cell in read(source).cells if "parameters" in cell.metadata.get("tags", [])]
    try:
        nodes = [node for cell in cells for node in ast.walk(ast.parse(cell.source))]
    except SyntaxError:
        raise ReportError(f"{source.stem}: the parameters cell must hold plain Python, without % or !.") from None
    names = [node for node in nodes if isinstance(node, ast.Name)]
    has = [node.id for node in names if isinstance(node.ctx, ast.Store)]
    for name in parameters:
        if name not in has:
            sets = ", ".join(has) or "none"
            raise ReportError(f"{source.stem} has no parameter {name!r}: its parameters cell sets {sets}.")


class _AboveTheBar:
    """Writes text to a stream above the progress bar, at whose end it would else begin."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        tqdm.write(text, self.stream, end="")

    def flush(self):
        self.stream.flush()


class _WriteOnce(NBClientEngine):
    """Writes the notebook when it has run or failed: papermill would do so twice a cell.

    That takes a tenth of the time of a short report.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, *arguments, **options):
        target, nb_man.output_path = nb_man.output_path, None
        try:
            return super().execute_managed_notebook(nb_man, *arguments, **options)
        finally:
            nb_man.output_path = target  # papermill writes once more at the end


papermill_engines.register("write once", _WriteOnce)


def run(source, target, parameters):
    """Execute one notebook and write it to `target`, also if it fails.

    Its name and its number of cells are printed first, its printed text is shown live, and a
    terminal shows how many cells are done.

    The kernel is this Python and starts in the folder of the source, as under JupyterLab. Raises
    ReportError naming notebook, cell and exception; `target` then holds what was executed.
    """
    check(source, parameters)
    notebook = read(source)
    images.embed(notebook, source.parent, source.stem)
    print(f"{source.stem}: {len(notebook.cells)} cells", flush=True)
    terminal = sys.stdout.isatty()
    # without numbers of cells: papermill counts the one that it injects
    look = {"desc": source.stem, "bar_format": "{l_bar}{bar}| {elapsed}", "leave": False}
    bar = {**look, "file": sys.stdout} if terminal else False
    streams = sys.stdout, sys.stderr
    stdout, stderr = map(_AboveTheBar, streams) if terminal else streams
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.kernelspec = kernel
    os.environ["TQDM_DISABLE"] = "1"  # for kernels: no bars in executed notebooks
    try:
        with files.with_path(target):
            papermill.execute_notebook(
                notebook,
                target,
                parameters,
                engine_name="write once",
                cwd=Path(source).parent,
                progress_bar=bar,
                stdout_file=stdout,
                stderr_file=stderr,
                # else the kernel reports its own port and its end
                extra_arguments=["--log-level=CRITICAL"],
            )
            executed = read(target)
            images.embed(executed, source.parent, source.stem)  # what its outputs refer to
            files.write(target, nbformat.writes(executed) + "\n")
    except PapermillExecutionError as error:
        options, _ = cell_options(error.source)
        cell = f"In [{error.exec_count}]"
        if "label" in options:
            cell = f"{options['label']} ({cell})"
        message = "\n  ".join((error.evalue.splitlines() or ["no message"])[:3])
        raise ReportError(f"{source.stem} failed in cell {cell}\n  {error.ename}: {message}") from None
    except (DeadKernelError, CellTimeoutError) as error:
        reason = (str(error).splitlines() or [""])[0]
        kind = type(error).__name__
        raise ReportError(f"{source.stem} stopped: {kind}: {reason} (out of memory?)") from None
