"""Operations are counted right, the best of what was tried is told, and no flag stays changed."""

import pytest
import torch

from gan_nst.bench import ceiling

CPU = torch.device("cpu")


@pytest.fixture
def taking(monkeypatch):
    """Every operation runs once and then takes so many seconds; the results' shapes and layouts are kept."""
    results = []

    def set_seconds(seconds):
        def time(operation, device):
            results.append(operation())
            return seconds

        monkeypatch.setattr(ceiling, "_seconds", time)
        return results

    return set_seconds


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_matrix_product_is_two_operations_an_element_and_column(taking, precision):
    results = taking(0.5)
    assert ceiling.matrix_product_rate(precision, CPU, side=8) == pytest.approx(2 * 8**3 / 0.5 / 1e9)
    assert results[0].dtype == ceiling.DTYPES[precision]


def test_a_convolution_grows_its_batch_until_it_takes_long_enough(taking):
    operations = 2 * 9 * 4 * 4 * 8 * 8
    results = taking(0.5)
    rate = ceiling.convolution_rate("float32", CPU, channels=4, side=8)
    assert rate == pytest.approx(operations / 0.5 / 1e9)
    assert [len(x) for x in results] == [1, 1]
    results.clear()
    taking(0.05)
    rate = ceiling.convolution_rate("float32", CPU, channels=4, side=8, largest_batch=4)
    assert rate == pytest.approx(4 * operations / 0.05 / 1e9)
    assert [len(x) for x in results] == [1, 2, 4, 1, 2, 4]
    assert [x.is_contiguous() for x in results] == [True] * 3 + [False] * 3


def test_cuda_flags_are_put_back():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    with ceiling.fastest_float32(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.benchmark
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before
    with ceiling.fastest_float32(CPU):
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before
