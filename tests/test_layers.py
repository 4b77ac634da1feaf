"""What may know what: the core runs without a user interface, and a package that takes our name is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIST_LOADED = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def python(*arguments, path=()):
    """Run a fresh interpreter in the repository, with more folders in front of its path."""
    start = "import sys; sys.path[:0] = sys.argv.pop(1).split('\\n')\n"
    where = "\n".join([str(ROOT), *map(str, path)])
    return subprocess.run([sys.executable, "-c", start + arguments[0], where, *arguments[1:]], capture_output=True, text=True)


def loaded(code):
    """The top-level modules of a fresh interpreter that has run `code`."""
    ran = python(f"{code}\n{LIST_LOADED}")
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout))


@pytest.fixture(scope="module")
def core():
    return loaded("import recurrent_writer.story, recurrent_writer.writer, recurrent_writer.library")


def test_the_core_knows_no_user_interface(core):
    assert {"recurrent_writer", "runtime", "kernels", "torch"} <= core
    assert not core & {"typer", "textual", "click", "app", "training"}


def test_the_runtime_knows_nothing_of_stories():
    found = loaded("from runtime import Engine")
    assert "kernels" in found
    assert not found & {"recurrent_writer", "training", "typer", "textual", "chromadb", "rich"}


def test_the_kernels_know_torch_alone():
    assert not loaded("import kernels.attention") & {"runtime", "recurrent_writer", "training", "transformers"}


@pytest.fixture
def rival(tmp_path):
    """A folder in which the Hugging Face distribution `kernels` is installed."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    about = tmp_path / "kernels-0.10.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.10.1\n")
    return tmp_path


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_package_that_shares_our_name_is_said_in_one_sentence(rival, first):
    program = "import runpy; sys.argv[0] = 'app.py'; runpy.run_path('app.py', run_name='__main__')"
    if first == "theirs":
        program = f"sys.path.insert(0, {str(rival)!r}); {program}"
    ran = python(f"import os; os.chdir({str(ROOT)!r}); {program}", "doctor", path=[rival])
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    assert "pip uninstall kernels" in ran.stderr


def test_a_script_gets_the_same_sentence_as_an_error(rival):
    ran = python("import runtime", path=[rival])
    assert "PackageConflict" in ran.stderr
    assert "pip uninstall kernels" in ran.stderr
