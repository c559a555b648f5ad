"""Candidates take turns, and their medians are told."""

import pytest

from gan_nst.bench.clock import interleaved


class Hands:
    """A clock that only candidates move; remembers who was called and who was waited for."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def candidate(self, name, *seconds):
        """Takes these seconds, call after call, then the last of them for good."""
        left = list(seconds)

        def call():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call

    def wait(self):
        self.calls.append("wait")


def test_candidates_take_turns_and_the_warm_rounds_do_not_count():
    clock = Hands()
    candidates = {"a": clock.candidate("a", 100, 1, 2, 30), "b": clock.candidate("b", 100, 5, 4, 4)}
    times = interleaved(candidates, 3, clock=clock)
    assert clock.calls == ["a", "b"] * 4
    assert times.seconds == {"a": 2, "b": 4}
    assert times.rounds == 3


def test_a_turn_may_be_several_calls_and_the_device_is_waited_for_on_both_sides():
    clock = Hands()
    times = interleaved({"a": clock.candidate("a", 3)}, 1, warm=0, calls=2, wait=clock.wait, clock=clock)
    assert clock.calls == ["wait", "a", "a", "wait"]
    assert times.seconds == {"a": 3}


def test_what_the_device_is_waited_for_is_counted():
    clock = Hands()

    def wait():
        clock.now += 7

    assert interleaved({"a": clock.candidate("a", 1)}, 1, wait=wait, clock=clock).seconds == {"a": 8}


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [(0, 3), (39, 3), (40, 4), (1e9, 9)],
)
def test_slow_candidates_take_fewer_rounds_but_at_least_three(budget, rounds):
    clock = Hands()
    candidates = {"slow": clock.candidate("slow", 9), "fast": clock.candidate("fast", 1)}
    times = interleaved(candidates, 9, budget=budget, clock=clock)
    assert times.rounds == rounds
    assert clock.calls.count("fast") == rounds + 1


def test_fewer_than_three_rounds_are_taken_when_asked_for():
    clock = Hands()
    assert interleaved({"a": clock.candidate("a", 9)}, 2, budget=0, clock=clock).rounds == 2
