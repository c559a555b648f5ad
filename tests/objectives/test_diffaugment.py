"""Differentiable augmentation against a naive version of one image at a time, given the same draws."""

import math

import pytest
import torch

from gan_nst.objectives import augment as diffaugment
from gan_nst.objectives.augment import augment

NAMES = ("colour", "translation", "cutout")
SHAPES = [(2, 3, 16, 16), (3, 3, 10, 17), (1, 3, 24, 8), (2, 1, 7, 9)]


def images(*shape, seed=0):
    """Images without a zero."""
    draw = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (draw * 2 - 1) * 0.9 + 0.05


def draws(x, count):
    """The numbers in [0, 1) that the next operation takes, a row for every image."""
    state = torch.get_rng_state()
    found = torch.rand(len(x), count, 1, 1, 1, dtype=x.dtype).reshape(len(x), count).tolist()
    torch.set_rng_state(state)
    return found


def mean(values):
    return math.fsum(values) / len(values)


def colour(image, brightness, saturation, contrast):
    """Zhao et al. 2020: brightness by -0.5 to 0.5, saturation by 0 to 2, contrast by 0.5 to 1.5, in this order."""
    channels, height, width = image.shape
    result = [[[v + brightness - 0.5 for v in row] for row in plane] for plane in image.tolist()]
    for row in range(height):
        for column in range(width):
            gray = mean([plane[row][column] for plane in result])
            for plane in result:
                plane[row][column] = (plane[row][column] - gray) * 2 * saturation + gray
    middle = mean([v for plane in result for row in plane for v in row])
    return [[[(v - middle) * (contrast + 0.5) + middle for v in row] for row in plane] for plane in result]


def translation(image, down, right):
    """Pixels beyond the image are gray."""
    channels, height, width = image.shape
    reach = [math.floor(side / 8 + 0.5) for side in (height, width)]
    shift = [math.floor(draw * (2 * r + 1)) - r for draw, r in zip((down, right), reach, strict=True)]
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            from_row, from_column = row + shift[0], column + shift[1]
            if 0 <= from_row < height and 0 <= from_column < width:
                result[:, row, column] = image[:, from_row, from_column]
    return result.tolist()


def cutout(image, top, left):
    """A rectangle of half the sides is gray; its centre is anywhere in the image."""
    result, corner, size = image.clone(), [], []
    for draw, side in zip((top, left), image.shape[1:], strict=True):
        cut = math.floor(side / 2 + 0.5)
        corner.append(math.floor(draw * (side + 1 - cut % 2)) - cut // 2)
        size.append(cut)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            if 0 <= row - corner[0] < size[0] and 0 <= column - corner[1] < size[1]:
                result[:, row, column] = 0
    return result.tolist()


NAIVE = {"colour": (colour, 3), "translation": (translation, 2), "cutout": (cutout, 2)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_equals_one_image_at_a_time(name, shape):
    naive, count = NAIVE[name]
    for seed in range(8):
        torch.manual_seed(seed)
        x = images(*shape, seed=seed)
        expected = [naive(one, *draw) for one, draw in zip(x, draws(x, count), strict=True)]
        found = augment(x, (name,))
        torch.testing.assert_close(found, torch.tensor(expected, dtype=x.dtype), rtol=1e-12, atol=1e-12)
        assert not torch.equal(augment(x, (name,)), found)  # the next draws are others


def test_operations_are_applied_in_the_given_order():
    x = images(2, 3, 12, 14)
    for how in (NAMES, NAMES[::-1], ("cutout", "cutout")):
        torch.manual_seed(3)
        one_by_one = x
        for name in how:
            one_by_one = augment(one_by_one, (name,))
        torch.manual_seed(3)
        assert torch.equal(augment(x, how), one_by_one)
    torch.manual_seed(3)
    assert not torch.equal(augment(x, NAMES), one_by_one)


def test_without_operations_images_are_unchanged_and_nothing_is_drawn():
    state, x = torch.get_rng_state(), images(2, 3, 8, 8)
    assert augment(x, ()) is x
    assert torch.equal(torch.get_rng_state(), state)


def many(name, shape, value=None):
    """The results of an operation on many images, which are flat if a value is given."""
    torch.manual_seed(0)
    x = images(*shape) if value is None else torch.full(shape, value, dtype=torch.float64)
    return x, augment(x, (name,))


def test_colours_change_by_as_much_as_published():
    x, found = many("colour", (600, 3, 4, 4))
    brightness = (found - x).mean((1, 2, 3))  # neither of the others changes the mean
    assert brightness.min() == pytest.approx(-0.5, abs=0.02)
    assert brightness.max() == pytest.approx(0.5, abs=0.02)
    gray, new = x.mean(1), found.mean(1)  # saturation does not change it, only contrast does
    contrast = new.std((1, 2)) / gray.std((1, 2))
    assert contrast.min() == pytest.approx(0.5, abs=0.02)
    assert contrast.max() == pytest.approx(1.5, abs=0.02)
    tint = (found - new[:, None]).std((1, 2, 3)) / (x - gray[:, None]).std((1, 2, 3)) / contrast
    assert 0 <= tint.min() < 0.02
    assert tint.max() == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 8), (20, 12)])
def test_shifts_reach_an_eighth_of_each_side_and_are_equally_likely(height, width):
    _, found = many("translation", (3000, 1, height, width), 1.0)
    for side, lines in ((height, found[:, 0].amax(2)), (width, found[:, 0].amax(1))):
        reach = math.floor(side / 8 + 0.5)
        first, last = lines.argmax(1), side - 1 - lines.flip(1).argmax(1)
        counts = torch.bincount(first - (side - 1 - last) + reach, minlength=2 * reach + 1)
        assert len(counts) == 2 * reach + 1  # at most the reach, either way
        expected = 3000 / len(counts)
        assert ((counts - expected).abs() < 5 * expected**0.5).all()
    assert set(found.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 8), (9, 14)])
def test_a_cut_is_a_rectangle_of_half_the_sides_whose_middle_is_in_the_image(height, width):
    _, found = many("cutout", (3000, 1, height, width), 1.0)
    gone = found[:, 0] == 0
    rows, columns = gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(gone.sum((1, 2)), rows * columns)
    for side, counts, lines in ((height, rows, gone.any(2)), (width, columns, gone.any(1))):
        cut = math.floor(side / 2 + 0.5)
        assert counts.max() == cut
        assert counts.min() == -(-cut // 2)
        assert lines.any(0).all()  # every line is reached
    assert set(found.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_have_their_own_random_numbers(name):
    torch.manual_seed(0)
    one = images(1, 3, 32, 32)
    found = augment(one.expand(16, 3, 32, 32), (name,))
    different = {image.numpy().tobytes() for image in found}
    assert len(different) > 10
    torch.manual_seed(1)
    x, y = images(2, 3, 8, 8), images(2, 3, 8, 8, seed=1)
    torch.manual_seed(4)
    first = augment(x, (name,))
    torch.manual_seed(4)
    other = augment(torch.cat([x[:1], y[:1]]), (name,))
    assert torch.equal(first[:1], other[:1])  # with any neighbour


def test_it_is_reproducible():
    x = images(4, 3, 12, 12)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(augment(x, NAMES))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("how", [*((name,) for name in NAMES), NAMES])
def test_gradients_pass_through(how):
    x = images(2, 3, 5, 6).requires_grad_()

    def same_draws(given):
        torch.manual_seed(0)
        return augment(given, how)

    assert torch.autograd.gradcheck(same_draws, (x,))
    (slope,) = torch.autograd.grad(same_draws(x).square().sum(), x)
    assert (slope != 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_on_the_meta_device_and_in_other_precisions(name):
    shapes = augment(torch.empty(2, 3, 12, 20, device="meta"), (name,))
    assert shapes.is_meta
    assert shapes.shape == (2, 3, 12, 20)
    for dtype in (torch.float32, torch.bfloat16):
        assert augment(images(2, 3, 12, 20).to(dtype), (name,)).dtype == dtype


def test_the_names_are_those_of_the_settings():
    assert set(diffaugment._AUGMENTATIONS) == set(NAMES)
