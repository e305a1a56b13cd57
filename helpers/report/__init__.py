"""Notebook sources -> executed notebooks, report.html, report.pdf and results.json.

    rehearsal.py     refuses before anything runs what could not be shown after it
    execute.py       notebooks/*.ipynb  -> cache/executed/PROFILE   (papermill)
    resolve.py       executed notebooks -> readable notebooks       (numbers, captions, references; pure Python)
    bibliography.py  refs.bib           -> citations and reference lists
    render.py        readable notebooks -> HTML and PDF             (nbconvert, pandoc, typst)
      cells.py, images.py   cells as Markdown for pandoc, and their images
      layout.py, fonts.py   the places of figures in the PDF, and its fonts
    parameters.py    other settings for the notebooks
    publish.py       results.json, README table, moving everything into place
    __main__.py      the command line

Only resolve.py gives numbers, so the notebooks, the HTML and the PDF cannot disagree.
"""

from helpers.errors import Problem


class ReportError(Problem):
    """Something the author can put right, said in one sentence."""
