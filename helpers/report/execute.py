"""Runs notebook sources with papermill."""

import sys
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from helpers import files

from . import ReportError
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


def run(source, target, parameters):
    """Execute one notebook, with its printed text shown live, and write it to `target` after every cell.

    The kernel is this Python and starts in the folder of the source, as under JupyterLab. Raises ReportError naming
    notebook, cell and exception; `target` then holds what was executed.
    """
    notebook = read(source)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    try:
        with files.with_path(target):
            papermill.execute_notebook(
                notebook,
                target,
                parameters,
                cwd=Path(source).parent,
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                extra_arguments=["--log-level=CRITICAL"],  # else the kernel reports its own port and its end
            )
    except PapermillExecutionError as error:
        options, _ = cell_options(error.source)
        cell = f"{options['label']} (In [{error.exec_count}])" if "label" in options else f"In [{error.exec_count}]"
        message = (error.evalue.splitlines() or ["no message"])[:3]
        raise ReportError(f"{source.stem} failed in cell {cell}\n  {error.ename}: " + "\n  ".join(message)) from None
    except (DeadKernelError, CellTimeoutError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ReportError(f"{source.stem} stopped: {type(error).__name__}: {reason} (out of memory?)") from None
