"""The replay buffer: what it returns, how often that is an old image, and that nothing is lost or shared."""

import io

import pytest
import torch

from gan_nst.objectives.replay import ReplayBuffer


def images(first, count):
    """`count` images, each filled with its own number, from `first` on."""
    return torch.arange(first, first + count, dtype=torch.float32).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)


def numbers(batch):
    assert all((image == image[0, 0, 0]).all() for image in batch)
    return [int(image[0, 0, 0]) for image in batch]


def feed(buffer, first, count, batch_size=1):
    returned = []
    for start in range(first, first + count, batch_size):
        returned += numbers(buffer(images(start, batch_size)))
    return returned


@pytest.mark.parametrize("batch_size", [1, 3, 12])
def test_it_fills_first_and_returns_its_inputs_unchanged(batch_size):
    buffer = ReplayBuffer(12)
    assert feed(buffer, 0, 12, batch_size) == list(range(12))
    assert numbers(buffer.images) == list(range(12))


def test_once_full_half_of_what_it_returns_is_earlier():
    buffer, count = ReplayBuffer(10, seed=3), 4000
    feed(buffer, 0, 10)
    returned = feed(buffer, 10, count)
    earlier = [
        given - got for given, got in zip(range(10, 10 + count), returned, strict=True) if got != given
    ]
    assert abs(len(earlier) / count - 0.5) < 5 * 0.5 / count**0.5
    assert min(earlier) > 0  # never one that has not been given yet
    # A slot is exchanged with chance 1/2 * 1/10 an image, so an old image is 20 younger ones old on
    # average.
    assert 18 < sum(earlier) / len(earlier) < 22


def test_an_image_is_returned_at_most_once_after_its_own_turn():
    buffer = ReplayBuffer(5, seed=1)
    returned = feed(buffer, 0, 1000)
    filling, later = returned[:5], returned[5:]
    assert filling == list(range(5))
    assert len(set(later)) == len(later)
    assert set(later) | set(numbers(buffer.images)) == set(range(1000))


def test_every_place_is_drawn():
    buffer = ReplayBuffer(8)
    feed(buffer, 0, 8)
    feed(buffer, 8, 400)
    assert min(numbers(buffer.images)) >= 8


def test_two_batches_of_two_give_what_one_of_four_gives():
    small, large = ReplayBuffer(3, seed=5), ReplayBuffer(3, seed=5)
    assert feed(small, 0, 80, 2) == feed(large, 0, 80, 4)
    assert numbers(small.images) == numbers(large.images)


def test_the_seed_decides_and_torchs_generator_is_not_touched():
    state = torch.random.get_rng_state()
    runs = [feed(ReplayBuffer(4, seed), 0, 60) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_capacity_zero_returns_every_input():
    buffer = ReplayBuffer(0)
    given = images(0, 3)
    assert buffer(given) is given
    assert buffer.images == []


def saved(buffer):
    """The buffer's state through a file, loaded as checkpoints are."""
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("before", [2, 30])
def test_a_restored_buffer_continues_like_the_saved_one(before):
    buffer = ReplayBuffer(4, seed=7)
    feed(buffer, 0, before)
    state = saved(buffer)
    restored = ReplayBuffer(4, seed=8)
    restored.load_state_dict(state)
    assert feed(restored, 100, 50) == feed(buffer, 100, 50)
    assert numbers(restored.images) == numbers(buffer.images)


@pytest.mark.parametrize("lost", ["random", "images"])
def test_without_a_part_of_its_state_it_continues_differently(lost):
    """The negative control of the test above."""
    buffer = ReplayBuffer(4, seed=7)
    feed(buffer, 0, 30)
    state = saved(buffer)
    state["_extra_state"][lost] = ReplayBuffer(4, seed=8).get_extra_state()[lost]
    restored = ReplayBuffer(4)
    restored.load_state_dict(state)
    assert feed(restored, 100, 50) != feed(buffer, 100, 50)


@pytest.mark.parametrize("filled", [False, True])
def test_changing_what_went_in_or_came_out_changes_nothing_inside(filled):
    buffer = ReplayBuffer(6)
    if filled:
        feed(buffer, 100, 6)
    before = set(numbers(buffer.images))
    given = images(0, 6)
    returned = buffer(given)
    kept = numbers(buffer.images)
    given.fill_(-1)
    returned.fill_(-2)
    assert numbers(buffer.images) == kept
    assert set(kept) <= before | set(range(6))
    given = images(0, 6)
    buffer(given).fill_(-2)
    assert numbers(given) == list(range(6))


def test_changing_the_buffer_changes_nothing_that_came_out():
    buffer = ReplayBuffer(6)
    returned = buffer(images(0, 6))
    for image in buffer.images:
        image.fill_(-1)
    assert numbers(returned) == list(range(6))


def test_no_gradient_passes():
    given = images(0, 2).requires_grad_()
    assert not ReplayBuffer(4)(given).requires_grad


def test_it_moves_with_its_module():
    buffer = ReplayBuffer(4)
    feed(buffer, 0, 2)
    buffer.to(torch.float64)
    assert {image.dtype for image in buffer.images} == {torch.float64}
    assert numbers(buffer.images) == [0, 1]


@pytest.mark.parametrize(
    "invalid",
    [
        torch.zeros(3, 1, 4, 4),
        [torch.zeros(1, 4, 4)] * 5,
        [torch.zeros(1, 4, 4), torch.zeros(1, 5, 4)],
        [torch.zeros(4)],
    ],
    ids=["no list", "too many", "of two sizes", "no image"],
)
def test_an_invalid_state_is_not_restored(invalid):
    state = ReplayBuffer(4).state_dict()
    state["_extra_state"]["images"] = invalid
    with pytest.raises(ValueError, match="4 images of one size"):
        ReplayBuffer(4).load_state_dict(state)


def test_meta_tensors_are_not_gathered(monkeypatch):
    """Operations are counted with them before a run of several processes starts."""
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.all_gather", lambda *_: pytest.fail("gathered"))
    images = torch.zeros(2, 3, 4, 4, device="meta")
    assert ReplayBuffer(1)(images).shape == images.shape
