"""The time budget per method, tested with a small session."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
import sys
sys.path.insert(0, {tests!r})
import budget

def pytest_configure(config):
    config.addinivalue_line("markers", "every_method: run over every method")
    budget.register(config, seconds={seconds})
"""

TESTS = """
import time
import pytest

@pytest.mark.every_method
@pytest.mark.parametrize("name", ["slow", "quick"])
@pytest.mark.parametrize("number", range(2))
def test_something(name, number):
    end = time.process_time() + (0.15 if name == "slow" else 0)
    while time.process_time() < end:
        pass
"""


@pytest.mark.parametrize(("seconds", "code"), [(0.2, 1), (30, 0)])
def test_a_method_over_its_budget_fails_the_session(pytester, seconds, code):
    tests = str(Path(__file__).parent)
    pytester.makeconftest(CONFTEST.format(tests=tests, seconds=seconds))
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q")
    assert done.ret == code
    text = done.stdout.str()
    assert ("slow: the tests run over every method took" in text) == bool(code)
    assert "quick: " not in text
