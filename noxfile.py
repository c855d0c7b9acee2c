"""The project's checks, one session each. `nox` runs the default ones; `nox -l` lists them all.

`.ci/run` runs the same sessions inside an environment that is installed already:
`nox --no-venv --no-install`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False  # `pythons` runs on those that there are
nox.options.sessions = ["lint", "types", "layers", "tests", "examples"]

HERE = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
QUICK = "not slow and not benchmark"
LOCK = "requirements.lock"
LOCK_COMMENT = "# Every extra, for every platform. Regenerate: nox -s lock (newer versions: nox -s lock -- --upgrade)"


def install(session: nox.Session, extra: str) -> None:
    """The project, editable, with one of its extras, at the locked versions."""
    session.install("-c", LOCK, "-e", f".[{extra}]")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and likely bugs: `ruff check`, `ruff format --check`."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict: needs the tests' libraries to know their types."""
    install(session, "dev")
    session.run("mypy", *session.posargs)


@nox.session
def layers(session: nox.Session) -> None:
    """Imports go down only, and the core stays pure: the import contracts of pyproject.toml."""
    install(session, "lint")
    session.run("lint-imports", "--no-logo")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests. Arguments after `--` go to pytest."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """The tests that are not slow, on every supported Python that is installed. Arguments after `--` go to pytest."""
    install(session, "test")
    session.run("pytest", "-m", QUICK, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The code blocks of the README and the documentation, run as written."""
    install(session, "test")
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Every program in examples/, run as a reader would, with a flyteish home of its own."""
    install(session, "examples")
    for example in sorted((HERE / "examples").glob("*.py")):
        with tempfile.TemporaryDirectory(prefix="flyteish-example-") as home:
            session.run("python", str(example.relative_to(HERE)), env={"FLYTEISH_HOME": home})


@nox.session
def benchmarks(session: nox.Session) -> None:
    """The numbers that the project holds itself to. Arguments after `--` choose among them."""
    install(session, "test")
    with tempfile.TemporaryDirectory(prefix="flyteish-benchmark-") as home:
        session.run("python", "-m", "tests.benchmarks", *session.posargs, env={"FLYTEISH_HOME": home})


@nox.session
def histories(session: nox.Session) -> None:
    """Ten thousand seeded fault histories of the core. Arguments after `--`: another number, or one seed again."""
    install(session, "test")
    session.run("python", "-m", "tests.histories", *session.posargs)


@nox.session
def adoption(session: nox.Session) -> None:
    """Attempts go on while their controller is killed at fifty seeded moments. Arguments after `--` go to pytest."""
    install(session, "test")
    session.run("pytest", "tests/adoption", "-s", *session.posargs)


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Write requirements.lock anew (needs uv). With `-- --upgrade`, to the newest versions."""
    compile_ = ("uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--quiet")
    output = ("--no-header", "--no-annotate", "--output-file", LOCK)
    session.run(*compile_, *output, *session.posargs, external=True, silent=True)
    pins = (HERE / LOCK).read_text(encoding="utf-8").removeprefix(LOCK_COMMENT + "\n")
    if "://" in pins:
        session.error(f"{LOCK} names an address")
    (HERE / LOCK).write_text(f"{LOCK_COMMENT}\n{pins}", encoding="utf-8")
