"""The commands and the set-up, tried without installing anything: a stand-in Python plays the one to be found."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from helpers.config import ROOT

LISTED = ("constraints.txt", "pyproject.toml")
LISTS = sorted(path.name for path in ROOT.glob("requirements*.txt"))
LISTED_FOR_TESTS = ["requirements.txt", "requirements-dev.txt", "requirements-cluster.txt"]
COMMANDS = re.findall(r"^([a-z_]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run make in `folder` as from a fresh terminal, without the environment or the make that runs these tests."""
    outer = {"VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    inherited = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=inherited | environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def clone(tmp_path):
    """The files that the set-up reads, in a folder whose name holds a space."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for path in [*ROOT.glob("requirements*.txt"), *(ROOT / name for name in ("Makefile", *LISTED))]:
        shutil.copy(path, folder)
    return folder


def fake_python(path: Path, prelude: str) -> Path:
    """A Python at `path` that executes `prelude` first, and only notes the call in `path.log` when given a module."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -m ] && {{ echo "$@" >> "{path}.log"; exit 0; }}\n'
        f"exec '{sys.executable}' -c 'import sys; {prelude}; exec(sys.argv[1])' \"$2\"\n"
    )
    path.chmod(0o755)
    return path


def on_path(folder: Path, prelude: str) -> str:
    """A PATH on which every Python that make tries is a stand-in."""
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        fake_python(folder / name, prelude)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_make_alone_prints_every_command():
    assert set(COMMANDS) >= {"report", "quick", "retrain", "test", "lab", "lint", "clean"}
    printed = make(ROOT).stdout.splitlines()
    assert [line.split()[1] for line in printed] == COMMANDS


def test_commands_in_readme_exist():
    text = (ROOT / "README.md").read_text()
    code = re.findall(r"`[^`\n]+`", text) + re.findall(r"^    .+", text, re.MULTILINE)
    named = set(re.findall(r"(?:`|^    )make ([a-z]+)\b", "\n".join(code), re.MULTILINE))
    assert {"report", "quick"} <= named <= set(COMMANDS)


@pytest.mark.parametrize("name", LISTS)
def test_requirements_are_pinned_and_explained(name):
    lines = (ROOT / name).read_text().splitlines()
    packages = [line for line in lines if line.strip() and not line.startswith("#")]
    assert packages
    assert [line for line in packages if not re.fullmatch(r"[\w.-]+==[\w.]+ +# \S.*", line)] == []


def pinned(name: str) -> dict[str, set[str]]:
    """The versions of each package that a file of requirements names; several, where Pythons or platforms differ."""
    versions = {}
    for package, version in re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(), re.MULTILINE):
        versions.setdefault(re.sub(r"[-_.]+", "-", package.lower()), set()).add(version)
    return versions


def test_what_requirements_bring_along_is_pinned_too():
    locked = pinned("constraints.txt")
    wanted = {package: versions for name in LISTS for package, versions in pinned(name).items()}
    for package, versions in wanted.items():
        assert locked[package] == versions, f"{package}: make constraints.txt anew, as its head says"
    needed, seen = list(wanted), set()
    while needed:  # what is installed here, for this Python and platform
        package = needed.pop()
        seen.add(package)
        assert package in locked, f"{package} is not pinned"
        for line in importlib.metadata.requires(package) or []:
            further = Requirement(line)
            name = re.sub(r"[-_.]+", "-", further.name.lower())
            if name not in seen and (further.marker is None or further.marker.evaluate({"extra": ""})):
                needed.append(name)
    assert len(seen) > 100


def test_conda_reads_the_same_list():
    lines = re.findall(r"^ {6}- (-\S+ \S+)", (ROOT / "environment.yml").read_text(), re.MULTILINE)
    assert lines[1:] == ["-c constraints.txt", "-r requirements.txt"] and lines[0].startswith("--extra-index-url")


def test_pip_without_make_reads_the_same_lists():
    required = importlib.metadata.requires("cifar10-report")
    if required is None:
        pytest.skip("the project is not installed here")
    extras = {"": "requirements.txt", "dev": "requirements-dev.txt", "cluster": "requirements-cluster.txt"}
    for extra, name in extras.items():
        marked = [line for line in required if (f'extra == "{extra}"' in line) == bool(extra)]
        packages = {re.split("==", line)[0] for line in marked if extra or "extra ==" not in line}
        assert packages >= {line.split("==")[0] for line in (ROOT / name).read_text().splitlines() if "==" in line}


def test_too_old_python_is_refused_in_one_sentence(clone, tmp_path):
    done = make(clone, "test", PATH=on_path(tmp_path / "bin", 'sys.version_info = (3, 9, 2, "final", 0)'))
    sentence, failure = done.stderr.splitlines()
    assert sentence.startswith("Python 3.11 or newer is needed and python3 is Python 3.9: install one")
    assert failure.startswith("make: ***")
    assert done.returncode != 0 and done.stdout == "" and not (clone / ".venv").exists()


def test_missing_venv_is_said_in_one_sentence(clone, tmp_path):
    # Debian's Python comes without ensurepip until python3-venv is installed
    done = make(clone, "test", PATH=on_path(tmp_path / "bin", 'sys.modules["ensurepip"] = None'))
    sentence, failure = done.stderr.splitlines()
    assert "not its module venv" in sentence and "python3-venv" in sentence
    assert done.returncode != 0 and done.stdout == ""


def test_too_old_active_environment_is_refused(clone, tmp_path):
    fake_python(tmp_path / "old env/bin/python", 'sys.version_info = (3, 9, 2, "final", 0)')
    done = make(clone, "test", VIRTUAL_ENV=str(tmp_path / "old env"))
    assert "old env has no Python 3.11 or newer: deactivate it" in done.stderr
    assert done.returncode != 0 and done.stdout == ""


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_set_up_uses_the_active_environment_once(clone, tmp_path, variable):
    active = {variable: str(tmp_path / "my env")}
    python = fake_python(tmp_path / "my env/bin/python", "pass")
    log = Path(f"{python}.log")

    def modules_run() -> list[str]:
        assert make(clone, "test", **active).returncode == 0
        calls = log.read_text().splitlines()
        log.unlink()
        return calls

    first, tests = modules_run(), "-m pytest -q -n auto --dist loadfile"
    installed = [call.split(" -r ")[1] for call in first if " -r " in call]
    assert installed == LISTED_FOR_TESTS
    assert any(call.endswith("-e .") for call in first) and first[-1] == tests
    assert modules_run() == [tests]

    (clone / "requirements.txt").touch()
    assert modules_run() == [tests]
    with (clone / "requirements.txt").open("a") as file:
        file.write("one-more==1.0  # reason\n")
    assert modules_run() == [call for call in first if "requirements-" not in call]
    assert not (clone / ".venv").exists()


def calls_of(clone, tmp_path, *arguments, **environment):
    """What a first set-up in an environment of its own runs."""
    python = fake_python(tmp_path / "env/bin/python", "pass")
    done = make(clone, *arguments, VIRTUAL_ENV=str(tmp_path / "env"), **environment)
    assert done.returncode == 0
    return Path(f"{python}.log").read_text(), done.stdout


def test_the_report_needs_no_packages_for_tests_or_clusters(clone, tmp_path):
    calls, _ = calls_of(clone, tmp_path, "report")
    assert "-r requirements.txt" in calls and "requirements-" not in calls


def test_a_cluster_gets_its_packages(clone, tmp_path):
    calls, _ = calls_of(clone, tmp_path, "ablation", "OPTIONS=--cluster tcp://host:8786")
    assert "-r requirements-cluster.txt" in calls and "requirements-dev" not in calls


@pytest.mark.parametrize(("torch", "from_index"), [("cpu", True), ("cuda", False)])
def test_pytorch_for_cpu_comes_from_its_own_index(clone, tmp_path, torch, from_index):
    calls, _ = calls_of(clone, tmp_path, "setup", f"TORCH={torch}")
    indexed = [call for call in calls.splitlines() if "--index-url" in call]
    assert len(indexed) == from_index
    assert all(re.search(r"torch==\S+ torchvision==\S+$", call) for call in indexed)


def test_an_index_out_of_reach_is_said_and_passed_over(clone, tmp_path):
    python = fake_python(tmp_path / "env/bin/python", "pass")
    python.write_text(python.read_text().replace("exit 0;", 'case "$*" in *--index-url*) exit 1;; esac; exit 0;'))
    done = make(clone, "setup", "TORCH=cpu", VIRTUAL_ENV=str(tmp_path / "env"))
    assert done.returncode == 0
    assert "PyTorch's index of CPU builds cannot be reached: installing the build that pip finds." in done.stdout
    assert "-r requirements.txt" in Path(f"{python}.log").read_text()


def test_conda_base_is_left_alone(clone, tmp_path):
    fake_python(tmp_path / "conda/bin/python", "pass")
    done = make(clone, "-n", "test", CONDA_PREFIX=str(tmp_path / "conda"), CONDA_DEFAULT_ENV="base")
    assert '".venv/bin/python" -m pytest' in done.stdout
    assert str(tmp_path) not in done.stdout


def test_what_is_set_is_never_run_by_the_shell(clone, tmp_path):
    python = fake_python(tmp_path / "env/bin/python", "pass")
    mischief = f'"; touch "{tmp_path}/ran"; `touch "{tmp_path}/ran"`'
    make(clone, "report", f"SET={mischief}", VIRTUAL_ENV=str(tmp_path / "env"))
    assert not (tmp_path / "ran").exists()
    assert f"--set {mischief}" in Path(f"{python}.log").read_text()


def test_clean_keeps_what_was_made(clone):
    kept = ["reports/report.html", "reports/runs/a/run.json", "reports/quick/x", "data/x", "cache/x", ".venv/x"]
    removed = ["helpers/__pycache__/x", "build/x", "reports/smoke/x", "reports/failed/x", "reports/quick/failed/x"]
    for name in kept + removed + ["notebooks/x", "tests/x"]:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    done = make(clone, "clean")
    assert done.returncode == 0 and "Removed" in done.stdout and done.stderr == ""
    assert [name for name in kept if not (clone / name).exists()] == []
    assert [name for name in removed if (clone / name).exists()] == []
