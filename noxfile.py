"""Development sessions: `nox -s demo`, `nox -s tests`, and the rest of what CI runs."""

import re

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = PROJECT["project"]["optional-dependencies"]
# The CPU builds, and one torch for all sessions: without a pin, pip takes gigabytes of CUDA with it.
BUILDS = {"torch": "torch==2.13.0", "tensorflow": "tensorflow-cpu"}
FRAMEWORKS = ("torch", "tf", "jax", "fast")
BACKENDS = ("tensorflow", "jax", "torch")
PYTEST = ("pytest", "-n2", "--dist", "worksteal")
EXPERIMENTS = ("image_classification", "language_modelling", "gan")


def requirements(*extras: str) -> list[str]:
    """The requirements of these extras, frameworks in their CPU builds."""
    names = [re.match(r"[\w-]+", line)[0] for extra in extras for line in EXTRAS[extra]]
    lines = [line for extra in extras for line in EXTRAS[extra]]
    return [BUILDS.get(name, line) for name, line in zip(names, lines, strict=True)]


def group(name: str) -> list[str]:
    """The requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def demo(session: nox.Session) -> None:
    """Train one classifier in NumPy, PyTorch, Keras and JAX, and one that moves between them; draw both."""
    session.install("-e", ".", *requirements(*FRAMEWORKS), *group("demo"))
    for script in ("digits/demo.py", "move_between_frameworks.py"):
        session.run("python", f"examples/{script}")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, each framework in a process of its own."""
    session.install("-e", ".", *requirements(*FRAMEWORKS), *group("tests"), *group("examples"))
    # One file of it is read, which needs none of what the package needs.
    session.install("--no-deps", "timm==1.0.31")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run(*PYTEST, "--doctest-modules", "adabelief_core", "tests/core", "tests/project")
    session.run(*PYTEST, "--doctest-modules", "adabelief_torch", "tests/torch")
    session.run(*PYTEST, "tests/examples", "tests/benchmarks")
    session.run(*PYTEST, "--doctest-modules", "adabelief_jax", "tests/jax")
    for backend in BACKENDS:
        session.run(*PYTEST, "--doctest-modules", "adabelief_tf", "tests/tf", env={"KERAS_BACKEND": backend})


@nox.session
@nox.parametrize("extra", ["none", "torch", "tf", "jax"])
def alone(session: nox.Session, extra: str) -> None:
    """An adapter needs nothing but its own extra: install the wheel with it alone, and compare bits."""
    session.install(".", *(requirements(extra) if extra != "none" else []))
    session.chdir(session.create_tmp())
    session.run("python", f"{session.invoked_from}/tests/alone.py", extra)


@nox.session
def lint(session: nox.Session) -> None:
    """Style."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strict for the core."""
    session.install("-e", ".", *group("types"))
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, into site/: strict, whole, and readable without a network."""
    session.install("-e", ".", *group("docs"))
    session.run("mkdocs", "build", "--strict")
    session.run("python", "tests/built_site.py", "site")


@nox.session
def build(session: nox.Session) -> None:
    """sdist and wheel, and an empty environment that imports what they install."""
    session.install("build", "virtualenv")
    out = session.create_tmp()
    session.run("python", "-m", "build", "--outdir", f"{out}/dist")
    session.run("python", "tests/install_built.py", f"{out}/dist")


@nox.session
def bench(session: nox.Session) -> None:
    """Speed and memory beside each framework's own optimizers: a table and a picture in benchmarks/."""
    session.install("-e", ".", *requirements(*FRAMEWORKS), *group("bench"))
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def experiments(session: nox.Session) -> None:
    """AdaBelief beside its rivals on data that every machine has, and the sweeps of eps: `-- --jobs 2`."""
    session.install("-e", ".", *requirements("torch", "fast"), *group("examples"))
    for name in EXPERIMENTS:
        for sweep in ((), ("--eps",)):
            session.run("python", "-m", f"examples.{name}", *sweep, *session.posargs)
    for name in ("landscapes", "landscapes.blow_up"):
        session.run("python", "-m", f"examples.{name}")


@nox.session
def peers(session: nox.Session) -> None:
    """How far each package's AdaBelief is from the paper's formula: tables."""
    session.install("-e", ".", *requirements("torch", "jax"), *group("peers"))
    session.install("--no-deps", "timm==1.0.31")  # one file of it is read
    session.run("python", "benchmarks/peers.py", *session.posargs)
