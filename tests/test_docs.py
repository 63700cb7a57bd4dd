"""README and documents name what exists: files, options, commands, and code."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.run import parsers
from tests.conftest import REPOSITORY

DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix() for path in (*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"))
)
PARSERS = {
    "run": parsers.run_parser,
    "preflight": parsers.preflight_parser,
    "diagnose": parsers.diagnose_parser,
    "compare": parsers.compare_parser,
    "report": parsers.report_parser,
    "predict": parsers.predict_parser,
    "throughput": parsers.throughput_parser,
}
FOLDERS = ("bench/", "variants/", "tests/", "docs/", "results/reference/", ".ci/", ".github/")
LONGEST_CELL = 100  # characters, in the tables of docs/speed/


def text_of(document: str) -> str:
    return (REPOSITORY / document).read_text(encoding="utf-8")


def fences(document: str, language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(document), re.MULTILINE | re.DOTALL)


def code_spans(document: str) -> list[str]:
    """Inline code, outside code blocks; spans may be wrapped."""
    prose = re.sub(r"^```.*?^```", "", text_of(document), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def shell_commands(document: str) -> Iterator[list[str]]:
    """Each command of the shell blocks, as words without its comment."""
    for block in fences(document, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                yield words[: words.index("&&")]
                words = words[words.index("&&") + 1 :]
            if words:
                yield words


def suite_commands(document: str) -> Iterator[list[str]]:
    """Arguments of `run_all.py`, from shell blocks and inline code; the bare name of a command is prose."""
    spans = [shlex.split(span) for span in code_spans(document) if "run_all.py " in span and "..." not in span]
    for words in (*shell_commands(document), *spans):
        names = [word.removeprefix("./") for word in words]
        if "run_all.py" in names and (found := words[names.index("run_all.py") + 1 :]) not in [
            [name] for name in PARSERS
        ]:
            yield found


def expand(path: str) -> list[str]:
    """``a/{b,c}.md`` is two paths."""
    braces = re.search(r"\{([^}]*)\}", path)
    if not braces:
        return [path]
    return [path[: braces.start()] + part.strip() + path[braces.end() :] for part in braces[1].split(",")]


def test_documents_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/speed/README.md"} <= set(DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document: str) -> None:
    if document == "CHANGELOG.md":
        pytest.skip("it names files that are gone")
    spans = [path for span in code_spans(document) for path in expand(span.split("::")[0])]
    paths = [path for path in spans if path.startswith(FOLDERS) and not re.search(r"[ <]|NAME", path)]
    missing = [path for path in paths if not list(REPOSITORY.glob(path.rstrip("/")))]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", text_of(document))
    folder = (REPOSITORY / document).parent
    local = [target.split("#")[0] for target in targets if not target.startswith(("http:", "https:", "#"))]
    assert not [target for target in local if not (folder / target).exists()]


def test_tests_of_faults_exist() -> None:
    named = re.findall(r"`(test_\w+\.py)`", text_of("docs/faults.md"))
    assert named
    assert not [name for name in named if not (REPOSITORY / "tests/faults" / name).is_file()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_and_their_names_exist(document: str) -> None:
    for dotted in code_spans(document):
        if not re.fullmatch(r"bench(\.\w+)+", dotted):
            continue
        parts = dotted.split(".")
        module = next(
            (
                (path, parts[end:])
                for end in range(len(parts), 0, -1)
                for path in (Path(*parts[:end]).with_suffix(".py"), Path(*parts[:end], "__init__.py"))
                if (REPOSITORY / path).is_file()
            ),
            None,
        )
        assert module, dotted
        path, names = module
        defined = {
            node.name
            for node in ast.parse((REPOSITORY / path).read_text(encoding="utf-8")).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        }
        assert not names or names[0] in defined, dotted


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_exist(document: str) -> None:
    known = {option for parser in PARSERS.values() for action in parser()._actions for option in action.option_strings}
    spans = [span for span in code_spans(document) if not span.startswith(("pip", "pytest", "ruff", "python3 -m"))]
    named = {word.split("=")[0] for span in spans for word in re.findall(r"(?<!\S)--[a-z][a-z-]*", span)}
    assert not named - known


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_suite_parse(document: str) -> None:
    for words in suite_commands(document):
        name = words[0] if words and words[0] in PARSERS else "run"
        try:
            PARSERS[name]().parse_args(words[name != "run" :])
        except UserError as error:
            pytest.fail(f"run_all.py {shlex.join(words)}: {error}")


def test_the_readme_has_commands() -> None:
    assert sum(1 for _ in suite_commands("README.md")) > 8
    assert {"voc:DIR", "coco:DIR"} <= {words[-1] for words in suite_commands("README.md") if words}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_pytest_name_what_exists(document: str, pytestconfig: pytest.Config) -> None:
    marks = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    spans = [shlex.split(span) for span in code_spans(document) if span.startswith("pytest ")]
    for words in (*shell_commands(document), *spans):
        if words[0] != "pytest":
            continue
        assert all((REPOSITORY / word).exists() for word in words if word.startswith("tests")), words
        for place, word in enumerate(words):
            if word == "-m":
                assert words[place + 1].removeprefix("not ") in marks, words


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name.startswith("docs/speed/")])
def test_cells_of_speed_tables_are_short(document: str) -> None:
    rows = [line for line in text_of(document).splitlines() if line.startswith("|")]
    long = [cell for row in rows for cell in re.split(r"(?<!\\)\|", row) if len(cell.strip()) > LONGEST_CELL]
    assert not long


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_examples_compile(document: str) -> None:
    for block in fences(document, "python"):
        compile(block, document, "exec")
