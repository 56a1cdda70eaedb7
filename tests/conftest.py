"""Options of the whole test suite, and the seed of what it draws."""

from __future__ import annotations

import gc
import secrets
import subprocess
from collections.abc import Iterator

import preloaded as servers
import pytest
import seeded
from hypothesis import settings

REPEATED = "0"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from this run")
    text = f"of all that tests draw in their own process ({REPEATED}); `random` for another each time"
    parser.addoption("--seed", default=REPEATED, help=text)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed == "random":
        config.option.seed = secrets.token_hex(4)
    settings.register_profile("repeated", derandomize=config.option.seed == REPEATED)
    settings.load_profile("repeated")
    seeded.install()
    gc.set_threshold(*servers.THRESHOLDS)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # modules and tests stay


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed}"


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> Iterator[None]:
    """A fixture draws the same whichever test asks for it first."""
    name = f"{fixturedef.baseid} {fixturedef.argname} {getattr(request, 'param', '')}"
    with seeded.drawing(request.config.option.seed, name):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with seeded.drawing(item.config.option.seed, item.nodeid):
        seeded.key_anew()
        return (yield)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


def _preloaded() -> Iterator[None]:
    """Processes of Python that start meanwhile have the package loaded (see preloaded.py)."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(subprocess, "Popen", servers.Popen)
        yield


preloaded = pytest.fixture(_preloaded, name="preloaded")
preloaded_module = pytest.fixture(_preloaded, scope="module", name="preloaded_module")
