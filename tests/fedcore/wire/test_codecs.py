"""One table of laws for every wire codec and chain."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedcore.errors import WireError
from fedcore.formats.codec_chain import VALUES, Chain, parse
from fedcore.formats.update_header import FrameRow
from fedcore.wire import codecs
from fedcore.wire.chain import array_of, bound, decode, encode
from fedcore.wire.codecs import LIMIT, NearestRounding, StochasticRounding

CHAINS = [
    Chain(values, top_k, packed)
    for values in VALUES
    for top_k in (1.0, 0.5, 0.01)
    for packed in (False, True)
]
STOCHASTIC = ["int8", "int4"]
chains = pytest.mark.parametrize("chain", CHAINS, ids=str)

EDGES = [0.0, -0.0, 1e-45, -1e-40, 2.0**-126, 1e-20, 1.0, -1.0, 65520.0, -LIMIT, LIMIT]
numbers = st.one_of(
    st.sampled_from(EDGES), st.floats(-1, 1, width=32), st.floats(-(2.0**-20), 2.0**-20, width=32)
)
shapes = st.sampled_from(
    [(), (1,), (3,), (63,), (64, 3), (0,), (4, 0, 2), (7, 19), (1, 129), (511,)]
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any shape; noise of any size with a few edge values strewn in."""
    shape = draw(shapes)
    made = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    made = made * draw(st.sampled_from([0.0, 1e-42, 1e-6, 1e-3, 1.0, 1e30]))
    flat = made.reshape(-1)
    for place, value in enumerate(draw(st.lists(numbers, max_size=min(5, flat.numel())))):
        flat[(place * 37) % flat.numel()] = value
    return flat.reshape(shape)


def there_and_back(chain: Chain, tensor: Tensor, seed: int = 1) -> Tensor:
    return decode(chain, encode(chain, "w", tensor, StochasticRounding(seed)), tensor.shape)


@chains
@settings(max_examples=25, deadline=None)
@given(tensor=tensors())
def test_error_is_within_the_bound(chain: Chain, tensor: Tensor) -> None:
    result = there_and_back(chain, tensor)
    assert result.shape == tensor.shape and result.dtype == torch.float32
    error = (result.double() - tensor.double()).abs()
    assert bool((error <= bound(chain, tensor).double()).all())
    assert bool((result[tensor == 0] == 0).all())
    assert chain.lossy or torch.equal(result, tensor)


@chains
@settings(max_examples=15, deadline=None)
@given(tensor=tensors())
def test_encoded_bytes_equal_prediction(chain: Chain, tensor: Tensor) -> None:
    parts = encode(chain, "w", tensor, StochasticRounding(1))
    arrays = array_of(chain, FrameRow(("w",), tuple(tensor.shape), ("0", "0z")), parts)
    counted = sum(array.numel() * array.element_size() for array in arrays.values())
    least, most = chain.payload(tensor.numel())
    if not arrays:
        assert not tensor.any()
    elif chain.packed:
        assert counted <= most
    else:
        assert least <= counted <= most
    assert least == most or chain.top_k < 1
    for name, due in chain.parts(tensor.numel()).items():
        assert not parts or parts[name].numel() == due.items


@chains
def test_encoding_repeats_and_keeps_its_input(chain: Chain) -> None:
    tensor = torch.randn(3, 701, generator=torch.Generator().manual_seed(5))
    before = tensor.clone()
    one, two = (encode(chain, "w", tensor, StochasticRounding(9)) for _ in range(2))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(tensor, before)


def test_stochastic_rounding_has_known_values() -> None:
    """Philox 4x64-10 with key 7: its first draws, as numpy documents them for every platform."""
    noise = (StochasticRounding(7).take(8) * 2**16).long().tolist()
    assert noise == KNOWN_NOISE
    whole, parts = StochasticRounding(3).take(64), StochasticRounding(3)
    assert torch.equal(whole, torch.cat([parts.take(16) for _ in range(4)]))
    assert float(whole.min()) >= 0 and float(whole.max()) < 1


KNOWN_NOISE = [31652, 43497, 46264, 24384, 49287, 30950, 37069, 52125]


@chains
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2 * LIMIT])
def test_non_finite_numbers_are_refused(chain: Chain, value: float) -> None:
    with pytest.raises(WireError, match="'w' holds NaN, infinity"):
        encode(chain, "w", torch.tensor([0.0, value, 1.0]), StochasticRounding(1))


@chains
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_encodes_as_fp32(chain: Chain, dtype: torch.dtype) -> None:
    tensor = torch.randn(130, generator=torch.Generator().manual_seed(2)).to(dtype)
    assert torch.equal(there_and_back(chain, tensor), there_and_back(chain, tensor.float()))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_rounding_is_unbiased(name: str) -> None:
    """The mean over many seeds comes within five standard errors of the number itself."""
    tensor = torch.randn(256, generator=torch.Generator().manual_seed(4))
    chain, trials = Chain(name), 400
    mean = sum(there_and_back(chain, tensor, seed).double() for seed in range(trials)) / trials
    step = bound(chain, tensor).double()
    off = (mean - tensor.double()).abs() / (step * 0.5 / math.sqrt(trials))
    assert float(off.max()) < 5 and float((mean - tensor).mean().abs() / step.mean()) < 0.01


@pytest.mark.parametrize("name", STOCHASTIC)
def test_nearest_rounding_error_is_half_a_step(name: str) -> None:
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(4))
    parts = encode(Chain(name), "w", tensor, NearestRounding())
    error = (decode(Chain(name), parts, tensor.shape) - tensor).abs()
    assert bool((error <= bound(Chain(name), tensor) * 0.5001).all())


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_top_k_keeps_the_largest_and_shrinks_the_error(fraction: float) -> None:
    """Stich et al. 2018: |x - C(x)|^2 <= (1 - k / d) |x|^2."""
    tensor = torch.randn(5003, generator=torch.Generator().manual_seed(6))
    count = math.ceil(fraction * tensor.numel())
    result = there_and_back(Chain("fp32", fraction), tensor)
    expected = torch.zeros_like(tensor)
    places = tensor.abs().topk(count).indices
    expected[places] = tensor[places]
    assert torch.equal(result, expected)
    lost = float((tensor - result).square().sum() / tensor.square().sum())
    assert lost <= 1 - count / tensor.numel()


def test_top_k_keeps_first_of_equal_magnitudes() -> None:
    tensor = torch.tensor([1.0, -1.0, 0.5, 1.0, -1.0, 0.0])
    result = there_and_back(Chain("fp32", 0.5), tensor)
    assert result.tolist() == [1.0, -1.0, 0, 1.0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.floats(0.001, 0.999), st.integers(0, 50))
def test_bitmap_and_gaps_round_trip(n: int, fraction: float, seed: int) -> None:
    """Long gaps, dense places, the first and the last one."""
    tensor = torch.zeros(n)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    count = Chain("fp32", fraction).top_k_count(n)
    tensor[chosen[:count]] = 1.0 + torch.arange(count)
    assert torch.equal(there_and_back(Chain("fp32", fraction), tensor), tensor)


@chains
def test_chain_text_round_trips(chain: Chain) -> None:
    assert parse(str(chain)) == chain


@pytest.mark.parametrize(
    "text",
    ["int3", "", "int8+int4", "top_k(0)+int8", "top_k(1)+int8", "top_k(nan)+int8", "zstd",
     "int8+gzip", "top_k(0.1)", "int8\n", "x" * 1000, "top_k(1e-400)+int8"],
)  # fmt: skip
def test_unknown_chain_is_refused_with_known_ones(text: str) -> None:
    with pytest.raises(WireError, match=r"unknown codec .*; known: fp32, bf16, fp16, int8, int4"):
        parse(text)


def test_every_codec_name_has_an_implementation() -> None:
    assert list(codecs.VALUES) == list(VALUES)
