"""Tensors that are computed once and cached."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fieldshift.tensor_cache import TensorCache, are_fixed, constant, index, is_traced, values_of


def test_the_oldest_is_forgotten_first() -> None:
    def make() -> Callable[[], Tensor]:
        return lambda: torch.zeros(8)

    cache: TensorCache[Tensor] = TensorCache(limit=2 * torch.zeros(8).nbytes)
    first, _ = cache.get("a", make()), cache.get("b", make())
    assert cache.get("a", make()) is first
    cache.get("c", make())
    assert cache.get("a", make()) is first
    again = torch.ones(8)
    assert cache.get("b", lambda: again) is again


def test_one_that_is_larger_than_the_limit_is_kept_until_the_next() -> None:
    cache: TensorCache[Tensor] = TensorCache(limit=1)
    first = cache.get("a", lambda: torch.zeros(8))
    assert cache.get("a", lambda: torch.ones(8)) is first
    cache.get("b", lambda: torch.zeros(8))
    assert cache.get("a", lambda: torch.ones(8)).sum() == 8


def test_a_constant_is_one_tensor_for_its_numbers_dtype_and_device() -> None:
    here = torch.device("cpu")
    one = constant((0.5, 2.0), torch.float32, here)
    assert one.tolist() == [0.5, 2.0]
    assert constant((0.5, 2.0), torch.float32, here) is one
    assert constant((0.5, 2.0), torch.float64, here).dtype == torch.float64
    assert constant((0.5, 2.0), torch.float32, torch.device("meta")).is_meta
    assert index((3, 1), here).dtype == torch.int64


def test_compiled_code_gets_a_constant_of_its_own() -> None:
    numbers = (0.25, 0.75)
    scaled = torch.export.export(Scaled(numbers), (torch.ones(2),)).module()
    assert scaled(torch.tensor([4.0, 4.0])).tolist() == [1.0, 3.0]
    assert constant(numbers, torch.float32, torch.device("cpu")).tolist() == [0.25, 0.75]  # no tensor of the tracer


def test_a_thread_is_not_traced_while_another_compiles() -> None:
    found: list[bool] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Tensor]:
        other = threading.Thread(target=lambda: found.extend([torch.compiler.is_compiling(), is_traced()]))
        other.start()
        other.join()
        return graph.forward

    torch.compile(lambda values: values + 1, backend=backend)(torch.ones(2))
    assert found == [True, False]


def test_nothing_of_a_mode_or_a_transform_is_kept() -> None:
    numbers, here = (0.125, 0.375), torch.device("cpu")
    with FakeTensorMode():
        assert isinstance(constant(numbers, torch.float32, here), FakeTensor)
    slope = torch.func.grad(lambda values: (values * constant(numbers, torch.float32, here)).sum())(torch.ones(2))
    assert slope.tolist() == list(numbers)
    kept = constant(numbers, torch.float32, here)
    assert type(kept) is Tensor
    assert not torch._C._functorch.is_functorch_wrapped_tensor(kept)


def test_what_is_first_asked_for_in_inference_mode_serves_training() -> None:
    cache: TensorCache[Tensor] = TensorCache(limit=100)
    with torch.inference_mode():
        numbers = constant((0.0625, 0.1875), torch.float32, torch.device("cpu"))
        assert not cache.get("a", lambda: torch.ones(2)).is_inference()
    values = torch.ones(2, requires_grad=True)
    (values * numbers).sum().backward()
    assert values.grad is not None


class Scaled(torch.nn.Module):
    def __init__(self, numbers: tuple[float, ...]) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, values: Tensor) -> Tensor:
        return values * constant(self.numbers, values.dtype, values.device)


def test_matrices_are_fixed_where_no_gradient_is_wanted_and_known_by_value_shape_and_dtype() -> None:
    matrices = torch.eye(2, 3).repeat(2, 1, 1)
    assert are_fixed(matrices)
    assert not are_fixed(matrices.clone().requires_grad_())
    assert values_of(matrices) == values_of(matrices.clone())
    assert values_of(matrices.bfloat16())[0] == values_of(matrices)[0]
    assert len({values_of(each) for each in (matrices, matrices.double(), matrices[:1], matrices + 1)}) == 4
    assert values_of(matrices.transpose(1, 2)) != values_of(matrices.view(2, 3, 2))
