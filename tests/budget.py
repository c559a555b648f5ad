"""A budget of CPU time for tests that run over every method, so that twenty methods will fit into a test run.

Tests marked `every_method` take the method's name as the parameter `name`. Their time is added up for each method over
all workers, and the session fails if a method exceeds its budget.
"""

import os
from collections import defaultdict

import pytest

SECONDS_PER_METHOD = 15.0


class Clock:
    """Records the CPU time of tests marked `every_method` in their reports."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        item.busy_before = _busy()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item):
        if item.get_closest_marker("every_method"):
            item.user_properties.append(
                (f"every_method {item.callspec.params['name']}", _busy() - item.busy_before)
            )


class Budget:
    """Adds up the recorded times for each method, in the process that controls the workers."""

    def __init__(self, seconds=SECONDS_PER_METHOD):
        self.seconds = seconds
        self.spent = defaultdict(float)

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown":
            for key, seconds in report.user_properties:
                if key.startswith("every_method "):
                    self.spent[key.split()[1]] += seconds

    def exceeded(self):
        """Returns one line for each method that took too long."""
        return [
            f"{method}: the tests run over every method took {spent:.1f} s; the budget is {self.seconds:g} s per method"
            for method, spent in sorted(self.spent.items())
            if spent > self.seconds
        ]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if self.exceeded() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for line in self.exceeded():
            terminalreporter.write_line(f"FAILED {line}", red=True)


def register(config, seconds=SECONDS_PER_METHOD):
    """Registers the clock in every process, and the budget in the controlling process."""
    config.pluginmanager.register(Clock())
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Budget(seconds))


def _busy():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
