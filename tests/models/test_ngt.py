"""What is true of gravity only; causality, reference and decoding are in the contract suite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from holo_cli.models.ngt import pull as pull_module
from holo_cli.models.ngt import reach as reach_module
from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.kernels import KERNELS, Gravity, Kernel, Lorentz, make_kernel
from holo_cli.models.ngt.mixer import LEAST_MASS, GravityMixer
from holo_cli.models.ngt.model import Model
from holo_cli.models.ngt.pull import pull
from holo_cli.models.ngt.reach import Reach, attend, attend_within, weights
from holo_cli.models.ngt.reference import CASES
from holo_cli.models.ngt.repulsion import pair_positions, repulsion
from holo_cli.registry import config_class

ATTRACTING = ["gravity", "gaussian", "lorentz"]
B, H, T, D, E = 2, 3, 21, 4, 6


def config(**given: Any) -> Config:
    shape = {"vocab_size": 29, "layers": 2, "heads": 2, "width": 16, "context": 64}
    return Config(**{**shape, **given})


def kernel_of(name: str, **given: Any) -> Kernel:
    """A kernel of three heads in float64, its parameters moved off their first values."""
    kernel = make_kernel(config(kernel=name, heads=H, width=H * 8, coords=D, **given)).double()
    with torch.no_grad():
        for p in kernel.parameters():
            p += 0.3 * torch.randn_like(p)
    return kernel


def particles(length: int = T, queries: int | None = None, spread: float = 1.0) -> list[Tensor]:
    """q, k, m, v with gradients, float64; q and m are of the last `queries` tokens."""
    torch.manual_seed(2)
    q, k = (spread * torch.randn(B, H, length, D, dtype=torch.float64) for _ in range(2))
    m = 0.1 + torch.rand(B, H, length, 1, dtype=torch.float64)
    v = torch.randn(B, H, length, E, dtype=torch.float64)
    q = q[:, :, -(queries or length) :].contiguous()
    return [x.requires_grad_() for x in (q, k, m, v)]


def pair_weight(kernel: Kernel, distance: float, mass: float = 1.0) -> float:
    """Share of a past token at a distance, beside one of mass 1 at distance 2 from the query."""
    q = torch.zeros(1, H, 1, D, dtype=torch.float64)
    k = torch.zeros(1, H, 2, D, dtype=torch.float64)
    k[..., 0, 0], k[..., 1, 1] = distance, 2.0
    m = torch.tensor([mass, 1.0], dtype=torch.float64).view(1, 1, 2, 1).expand(1, H, 2, 1)
    w = weights(kernel, None, q, k, m[:, :, 1:], m.log())
    return w[0, 0, 0, 0].item()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks at small lengths, none of which divides 21."""
    monkeypatch.setattr(pull_module, "BLOCK", 5)
    monkeypatch.setattr(reach_module, "SIDE", 4)


# -- gravity is gravity ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTRACTING)
def test_moving_a_token_closer_raises_its_weight(name: str) -> None:
    kernel = kernel_of(name)
    shares = [pair_weight(kernel, d) for d in (5.0, 3.0, 2.0, 1.0, 0.3, 0.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5 * shares[-1]


@pytest.mark.parametrize("name", ATTRACTING)
def test_a_token_infinitely_far_weighs_nothing(name: str) -> None:
    kernel = kernel_of(name)
    assert pair_weight(kernel, 1e6) < 1e-5 < pair_weight(kernel, 2.0)


@pytest.mark.parametrize("name", ATTRACTING)
def test_twice_the_mass_is_twice_the_odds(name: str) -> None:
    kernel = kernel_of(name)
    one, two = pair_weight(kernel, 1.5), pair_weight(kernel, 1.5, mass=2.0)
    assert two / (1 - two) == pytest.approx(2 * one / (1 - one), rel=1e-12)


def test_gravity_falls_as_the_power_of_the_distance() -> None:
    """Far from the softening, twice the distance is a quarter of the weight at p = 2."""
    kernel = kernel_of("gravity", power=2.0)
    near, far = pair_weight(kernel, 1e3), pair_weight(kernel, 2e3)
    assert (near / (1 - near)) / (far / (1 - far)) == pytest.approx(4.0, rel=1e-4)


def test_the_older_formula_repels_and_says_so() -> None:
    kernel = kernel_of("classic")
    shares = [pair_weight(kernel, d) for d in (5.0, 3.0, 2.0, 1.0, 0.3, 0.0)]
    assert shares == sorted(shares, reverse=True)
    description = Config.model_fields["kernel"].description or ""
    assert "classic" in description
    assert "comparison" in description
    assert "comparison" in (KERNELS["classic"].__doc__ or "")


def test_the_pulled_token_s_own_mass_cancels() -> None:
    q, k, m, _ = particles()
    for name in ATTRACTING:
        kernel = kernel_of(name)
        torch.testing.assert_close(
            weights(kernel, None, q, k, 7 * m, m.log()), weights(kernel, None, q, k, m, m.log())
        )
    kernel = kernel_of("classic")
    assert not torch.allclose(
        weights(kernel, None, q, k, 7 * m, m.log()), weights(kernel, None, q, k, m, m.log())
    )


# -- fast forms and the open one ------------------------------------------------------------------


def naive(kernel: Kernel, q: Tensor, k: Tensor, m: Tensor, v: Tensor) -> Tensor:
    """All pairs' differences at once, (B, H, S, L, d): what the fast forms must never make."""
    lift = k
    if isinstance(kernel, Lorentz):
        beta = kernel.log_beta.exp()[:, None, None]
        lift = torch.cat(((beta + k.square().sum(-1, keepdim=True)).sqrt(), k), -1)
        up = torch.cat(((beta + q.square().sum(-1, keepdim=True)).sqrt(), q), -1)
        sign = torch.ones(D + 1, dtype=q.dtype)
        sign[0] = -1
        inner = (up[:, :, :, None] * lift[:, :, None] * sign).sum(-1)
        squared = -2 * beta - 2 * inner
    else:
        squared = (q[:, :, :, None] - k[:, :, None]).square().sum(-1)
    if isinstance(kernel, Gravity):
        eps, power = kernel.eps()[:, None, None], kernel.power()[:, None, None]
        w = m.mT / (eps + squared) ** (power / 2)
    else:
        w = m.mT * (-kernel.figures()["gamma"][:, None, None] * squared).exp()
    w = w.tril(k.shape[2] - q.shape[2])
    return (w / w.sum(-1, keepdim=True)) @ v


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("queries", [T, 7, 1])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("gravity", {}),
        ("gravity", {"power": 2.0}),
        ("gravity", {"power": 3.0, "learn_power": True}),
        ("gaussian", {}),
        ("lorentz", {"beta": 0.5}),
    ],
)
def test_fast_and_general_forms_equal_the_naive_one(
    name: str, given: dict[str, Any], queries: int
) -> None:
    kernel = kernel_of(name, **given)
    q, k, m, v = particles(queries=queries)
    leaves = [q, k, m, v, *kernel.parameters()]
    weight = torch.randn(B, H, queries, E, dtype=torch.float64)
    expected = naive(kernel, q, k, m, v)
    wanted = torch.autograd.grad((expected * weight).sum(), leaves)
    fast = kernel.pull(q, k, m, v)
    assert fast is not None
    general = attend(kernel, None, q, k, m[:, :, -queries:], m.log(), v)
    for y in (fast, general):
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
        grads = torch.autograd.grad((y * weight).sum(), leaves, retain_graph=True)
        for got, want in zip(grads, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("power", [2.0, 3.0, "learned"])
@pytest.mark.parametrize("queries", [11, 6])
def test_gradcheck_of_the_chunked_form(power: float | str, queries: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, queries, 4, dtype=torch.float64, requires_grad=True)
    k = torch.randn(2, 11, 4, dtype=torch.float64, requires_grad=True)
    u = (0.2 + torch.rand(2, 11, 4, dtype=torch.float64)).requires_grad_()
    eps = torch.tensor([[[0.1]], [[1.0]]], dtype=torch.float64, requires_grad=True)
    p: Tensor | float = 2.0
    if isinstance(power, float):
        p = power
    else:
        p = torch.tensor([[[1.5]], [[4.0]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pull, (q, k, u, eps, p))


def test_wide_coordinates_are_padded_the_other_way() -> None:
    """More coordinates than a value has places: values are padded and cut again."""
    kernel = make_kernel(config(kernel="gaussian", coords=12)).double()
    q, k = (torch.randn(1, 2, 9, 12, dtype=torch.float64) for _ in range(2))
    m, v = torch.rand(1, 2, 9, 1, dtype=torch.float64), torch.randn(1, 2, 9, 8).double()
    fast = kernel.pull(q, k, m, v)
    torch.testing.assert_close(fast, attend(kernel, None, q, k, m, m.log(), v))


def test_a_very_large_beta_is_flat_space() -> None:
    q, k, _, _ = particles()
    curved, flat = kernel_of("lorentz"), kernel_of("gaussian")
    with torch.no_grad():
        curved.log_beta.fill_(60.0)
    torch.testing.assert_close(curved.squared(q, k), flat.squared(q, k), rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        curved.log_beta.fill_(0.0)
    assert not torch.allclose(curved.squared(q, k), flat.squared(q, k), rtol=0.05)


def test_curvature_is_real_in_the_model() -> None:
    """Points of one norm would make a hyperboloid flat: coordinates keep norms of their own."""
    torch.manual_seed(0)
    model = Model(config(kernel="lorentz"))
    torch.nn.init.normal_(model.blocks[0].mixer.out.weight)
    model.hidden(torch.randint(0, 29, (2, 12))).x.pow(3).sum().backward()
    grad = model.blocks[0].mixer.kernel.log_beta.grad
    assert (grad.abs() > 1e-3).all()


def test_in_float32_near_points_keep_their_distance() -> None:
    """Under autocast too: 0.1 between points of norm 8 is right to a few per cent."""
    kernel = kernel_of("gravity").float()
    q = 4 * torch.ones(1, H, 1, D)
    k = q.clone()
    k[..., 0] += 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kernel.squared(q, k).sqrt().mean().item() == pytest.approx(0.1, rel=0.03)
        v = torch.ones(1, H, 1, E)
        assert kernel.pull(q, k, torch.ones(1, H, 1, 1), v).isfinite().all()


# -- nothing blows up, nothing is dead -------------------------------------------------------------


@pytest.mark.parametrize("name", [*ATTRACTING, "classic"])
def test_coincident_points_have_finite_gradients(name: str) -> None:
    kernel = kernel_of(name).float()
    z = torch.ones(1, H, 9, D, requires_grad=True)
    m = torch.ones(1, H, 9, 1, requires_grad=True)
    v = torch.randn(1, H, 9, E)
    forms = [attend(kernel, None, z, z, m, m.log(), v), kernel.pull(z, z, m, v)]
    for y in (form for form in forms if form is not None):
        for grad in torch.autograd.grad(y.square().sum(), [z, m, *kernel.parameters()]):
            assert grad.isfinite().all()


def test_extreme_powers_stay_finite() -> None:
    """Self far away, least mass, steepest power: a row still has a sum."""
    kernel = kernel_of("gravity", power=15.9).float()
    q = torch.full((1, H, 40, D), 8.0, requires_grad=True)
    m = torch.full((1, H, 40, 1), LEAST_MASS)
    v = torch.ones(1, H, 40, E)
    y = kernel.pull(q, -q, m, v)
    torch.testing.assert_close(y, v)
    y.sum().backward()
    assert q.grad.isfinite().all()


@pytest.mark.parametrize("label", list(CASES))
def test_masses_radius_and_laws_get_gradients(label: str) -> None:
    torch.manual_seed(0)
    model = Model(config(**CASES[label])).train()
    for block in model.gravity_blocks():
        torch.nn.init.normal_(block.mixer.out.weight, std=0.3)
        torch.nn.init.normal_(block.mixer.mass.weight, std=0.3)
    tokens = torch.randint(0, 29, (4, 20))
    model.hidden(tokens).x.pow(3).sum().backward()
    for block in model.gravity_blocks():
        wanted = [block.mixer.mass.weight, *block.mixer.kernel.parameters()]
        if block.mixer.reach is not None:
            wanted.append(block.mixer.reach.radius)
        for p in wanted:
            assert p.grad is not None
            assert p.grad.isfinite().all()
            assert (p.grad != 0).all()


# -- the radius ------------------------------------------------------------------------------------


def reach_of(mode: str, radius: float, tau: float = 1.0) -> Reach:
    made = config(heads=H, width=H * 8, radius_mode=mode, radius=radius, tau=tau)
    return Reach(made).double()


@pytest.mark.parametrize("name", ATTRACTING)
def test_a_hard_radius_cuts_the_far_and_keeps_the_self(name: str) -> None:
    kernel = kernel_of(name)
    q, k, m, _ = particles()
    q = q + 50  # every token is out of its own reach too
    w = weights(kernel, reach_of("hard", 1.0).eval(), q, k, m, m.log())
    torch.testing.assert_close(w, torch.eye(T, dtype=w.dtype).expand_as(w))
    q, k, m, _ = particles()
    w = weights(kernel, reach_of("hard", 2.0).eval(), q, k, m, m.log())
    past = torch.ones(T, T).tril(-1).bool()
    far = kernel.squared(q, k) > 4.0
    assert (w[far & past] == 0).all()
    assert (w[~far & past] > 0).all()
    assert 0.1 < far[..., past].double().mean() < 0.999


def test_a_soft_radius_cuts_the_weight_and_not_the_score() -> None:
    """Tokens beyond it lose weight, whatever the sign of their score; a narrow one is hard."""
    kernel = kernel_of("gravity")
    q, k, m, _ = particles()
    free = weights(kernel, None, q, k, m, m.log())
    soft = weights(kernel, reach_of("soft", 2.0), q, k, m, m.log())
    past = torch.ones(T, T).tril(-1).bool()
    far = (kernel.squared(q, k) > 16.0) & past
    assert far.any()
    odds_free = free / free.diagonal(dim1=-2, dim2=-1)[..., None]
    odds_soft = soft / soft.diagonal(dim1=-2, dim2=-1)[..., None]
    assert (odds_soft[far] < 1e-4 * odds_free[far]).all()
    narrow = weights(kernel, reach_of("soft", 2.0, tau=1e-6), q, k, m, m.log())
    hard = weights(kernel, reach_of("hard", 2.0).eval(), q, k, m, m.log())
    torch.testing.assert_close(narrow, hard, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("queries", [T, 9, 2, 1])
@pytest.mark.parametrize("radius", [0.0, 0.7, 2.0, 4.0, 100.0])
@pytest.mark.parametrize("name", ATTRACTING)
def test_skipping_blocks_changes_nothing(name: str, radius: float, queries: int) -> None:
    kernel, reach = kernel_of(name), reach_of("hard", radius).eval()
    q, k, m, v = particles(queries=queries, spread=2.0)
    given = (q, k, m[:, :, -queries:], m.log(), v)
    with torch.no_grad():
        torch.testing.assert_close(
            attend_within(kernel, reach, *given), attend(kernel, reach, *given)
        )


@pytest.mark.parametrize("name", ATTRACTING)
def test_blocks_out_of_reach_are_really_skipped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text in five far-apart clusters, a block each: only the diagonal is worked on."""
    monkeypatch.setattr(reach_module, "SIDE", 8)
    kernel, reach = kernel_of(name), reach_of("hard", 3.0).eval()
    torch.manual_seed(0)
    axes = torch.cat((torch.eye(D), -torch.eye(D)[:1])).double()
    z = 30 * axes.repeat_interleave(8, dim=0) + 0.3 * torch.randn(1, H, 40, D).double()
    m, v = torch.ones(1, H, 40, 1).double(), torch.randn(1, H, 40, E).double()
    pairs = 0
    squared = type(kernel).squared

    def count(self: Kernel, q: Tensor, k: Tensor, heads: Tensor | None = None) -> Tensor:
        nonlocal pairs
        if q.shape[-2] > 1 and k.shape[-2] > 1:
            pairs += q.shape[0] * q.shape[-2] * k.shape[-2]
        return squared(self, q, k, heads)

    monkeypatch.setattr(type(kernel), "squared", count)
    y = attend_within(kernel, reach, z, z, m, m.log(), v)
    assert pairs == H * 5 * 8 * 8
    torch.testing.assert_close(y, attend(kernel, reach, z, z, m, m.log(), v))


def test_the_model_evaluates_with_skipping_as_without() -> None:
    """A prompt of several blocks: no_grad skips, grad mode does not."""
    torch.manual_seed(0)
    model = Model(config(radius_mode="hard", radius=2.0, context=200)).double().eval()
    for block in model.gravity_blocks():
        torch.nn.init.normal_(block.mixer.out.weight, std=0.3)
    tokens = torch.randint(0, 29, (2, 150))
    plain = model(tokens)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), plain, rtol=0, atol=1e-10)
        head, state = model.step(tokens[:, :97], model.init_state(2))
        tail, _ = model.step(tokens[:, 97:], state)
    torch.testing.assert_close(torch.cat((head, tail), 1), plain, rtol=0, atol=1e-10)
    assert plain.shape == (2, 150, 29)


# -- repulsion -------------------------------------------------------------------------------------


def test_repulsion_falls_as_points_move_apart() -> None:
    torch.manual_seed(0)
    z, m = torch.randn(2, 15, H, D), torch.rand(2, 15, H)
    losses = [repulsion(scale * z, m, 64).item() for scale in (0.0, 0.1, 0.5, 1.0, 3.0)]
    assert losses == sorted(losses, reverse=True)
    assert -0.01 < losses[0] <= 0
    z.requires_grad_()
    (grad,) = torch.autograd.grad(repulsion(z, m, 64), z)
    assert repulsion(z - 0.5 * grad, m, 64) < repulsion(z, m, 64)


def test_the_gradient_of_repulsion_is_bounded_and_alive_at_collapse() -> None:
    torch.manual_seed(0)
    m = torch.rand(2, 15, H)
    direction = torch.randn(2, 15, H, D)
    norms = []
    for scale in (1e2, 1.0, 0.1, 0.05):
        z = (1 + scale * direction).requires_grad_()
        (grad,) = torch.autograd.grad(repulsion(z, m, 64), z)
        # all points together, mean over heads: at most 2 / sigma (each pair moves two points)
        assert grad.norm(dim=-1).sum() <= 2 / D**0.5 + 1e-5
        norms.append(grad.norm().item())
    assert norms[-1] > 0.5 * norms[1]
    z = torch.ones(2, 15, H, D, requires_grad=True)  # all at one point, exactly
    (grad,) = torch.autograd.grad(repulsion(z, m, 64), z)
    assert grad.isfinite().all()


def test_heavy_pairs_repel_more_and_masses_are_not_moved_by_it() -> None:
    torch.manual_seed(0)
    z = torch.randn(1, 6, 1, D)
    z[0, 4] = z[0, 5]  # the pair that is nearest
    light, heavy = torch.ones(1, 6, 1), torch.ones(1, 6, 1)
    heavy[0, 4:] = 10.0
    assert repulsion(z, heavy, 500) > repulsion(z, light, 500)
    heavy.requires_grad_()
    z.requires_grad_()
    repulsion(z, heavy, 500).backward()
    assert heavy.grad is None


def test_pairs_cover_the_past_evenly() -> None:
    later, earlier = pair_positions(9, 3600, torch.device("cpu"))
    assert (earlier < later).all()
    assert earlier.min() == 0
    counts = torch.bincount(later * 9 + earlier, minlength=81).view(9, 9)
    assert (counts.triu() == 0).all()
    each = counts[torch.ones(9, 9).tril(-1).bool()].double()  # of 36 pairs
    assert each.min() > 0.5 * each.mean()
    assert each.max() < 1.6 * each.mean()


def test_repulsion_is_absent_when_off_and_spread_by_its_interval() -> None:
    tokens = torch.randint(0, 29, (2, 24), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    assert Model(config()).hidden(tokens).aux == {}
    found = {}
    for interval in (1, 4):
        torch.manual_seed(0)
        made = config(lambda_repulsion=0.5, repulsion_interval=interval, repulsion_pairs=4000)
        model = Model(made)
        loss = model.hidden(tokens).aux["repulsion"]
        loss.backward()
        assert model.blocks[0].mixer.move.weight.grad.abs().sum() > 0
        found[interval] = loss.item()
        assert model.hidden(tokens[:, :1]).aux == {}  # no past, no pairs
    # a quarter of the weight, over a quarter of the pairs: nearly a quarter of the loss
    assert found[4] == pytest.approx(found[1] / 4, rel=0.05)


def test_repulsion_spreads_the_coordinates_of_a_model() -> None:
    spreads = []
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        model = Model(config(lambda_repulsion=strength))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(15):
            tokens = torch.randint(0, 29, (4, 24))
            hidden = model.hidden(tokens)
            (sum(hidden.aux.values(), torch.zeros(())) + 0 * hidden.x.sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
        spreads.append(model.measures(tokens)["layer2/repulsion"])
    assert spreads[1] < spreads[0] - 0.05


# -- memory ----------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Remembers the most elements any operation put into one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr():
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("label", [c for c in CASES if c not in ("gaussian", "lorentz")])
def test_training_memory_grows_with_the_length_and_not_with_its_square(label: str) -> None:
    """PyTorch's own attention, which gaussian and lorentz run on, is measured by its authors."""
    largest = {}
    for length in (512, 1024):
        model = Model(config(**CASES[label], layers=1, context=length)).train()
        with Largest() as seen:
            model.hidden(torch.zeros(1, length, dtype=torch.int64)).x.sum().backward()
        largest[length] = seen.elements
    heads = model.config.heads
    assert largest[1024] <= heads * pull_module.BLOCK * 1024
    assert largest[1024] <= 2.1 * largest[512]
    assert largest[1024] < 1024 * 1024  # less than one head's pairs, let alone times d


# -- what is logged and shown ----------------------------------------------------------------------


@pytest.mark.parametrize("label", list(CASES))
def test_measures_are_those_of_the_physics(label: str) -> None:
    torch.manual_seed(0)
    model = Model(config(**CASES[label])).double().eval()
    tokens = torch.randint(0, 29, (2, 40))
    with torch.no_grad():
        got = model.measures(tokens)
    names = {"distance", "entropy", "mass_min", "mass_mean", "mass_max", "repulsion"}
    names |= set(model.gravity_blocks()[0].mixer.kernel.figures())
    if "radius_mode" in CASES[label]:
        names |= {"radius", "beyond"}
    assert set(got) == {f"layer{n}/{name}" for n in (1, 2) for name in names}
    assert all(isinstance(value, float) for value in got.values())
    for n in (1, 2):
        mean = got[f"layer{n}/mass_mean"]
        # all weigh softplus(0) at first
        assert mean == pytest.approx(0.6931 + LEAST_MASS, abs=1e-3)
        assert 0 < got[f"layer{n}/mass_min"] <= mean + 1e-9 <= got[f"layer{n}/mass_max"] + 2e-9
        assert 0 <= got[f"layer{n}/entropy"] <= torch.tensor(40.0).log()
        if "radius_mode" in CASES[label]:
            assert got[f"layer{n}/radius"] == CASES[label]["radius"]
            assert 0 <= got[f"layer{n}/beyond"] <= 1


def test_snapshots_agree_with_what_the_model_computes() -> None:
    """Weights from a snapshot, applied to its values, are what the mixer adds to the stream."""
    from holo_cli.models.ngt.physics import snapshots
    from holo_cli.models.views import watched

    torch.manual_seed(0)
    model = Model(config(conv=3)).double().eval()
    mixer = model.blocks[1].mixer
    torch.nn.init.normal_(mixer.out.weight)
    tokens = torch.randint(0, 29, (1, 18))
    with torch.no_grad(), watched([mixer]) as calls:
        model.hidden(tokens)
    with torch.no_grad():
        last = snapshots(model, tokens)[1]
        torch.testing.assert_close(mixer._join(last.weights @ last.now.v), calls[0][1][0])
    assert isinstance(mixer, GravityMixer)


@pytest.mark.parametrize("label", ["gravity", "gravity-soft", "lorentz-hard", "classic"])
def test_pages_hold_what_the_model_gives(label: str) -> None:
    import json

    from holo_cli.models.ngt import views

    torch.manual_seed(0)
    model = Model(config(**CASES[label])).eval()
    assert model.views() == tuple(views.PAGES)
    tokens = torch.randint(0, 29, (15,))
    with torch.inference_mode():
        where = views.coordinates(model, tokens)
        shown = views.attention(model, tokens)
        pictures = views.gravity(model, tokens)
    assert len(where.layers) == len(where.names) == len(shown.layers) == 2
    assert {tuple(x.shape) for x in where.layers} == {(15, 2 * model.config.dimensions)}
    assert where.mass is not None
    assert all((m > 0).all() and m.shape == (15,) for m in where.mass)
    for layer in shown.layers:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 15))
        assert (layer.triu(1) == 0).all()
    assert pictures[0].title == "Who pulls whom"
    for picture in pictures:
        assert len(picture.variants) == len(picture.tables) == 2
        json.dumps([picture.variants, picture.layout], allow_nan=False)
    pulled = pictures[0].tables[0].rows
    mean = shown.layers[0].double().mean(0)
    for t, s, w, _, own in pulled:
        assert s < t
        assert w == pytest.approx(mean[t, s].item(), rel=1e-3)
        assert own == pytest.approx(mean[t, t].item(), rel=1e-3)


# -- what can be set -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"width": 18, "heads": 4}, "multiple"),
        ({"coords": 0}, "coords"),
        ({"coords": 3}, "even"),
        ({"radius": -1.0}, "radius"),
        ({"power": -2.0}, "power"),
        ({"power": 0.0, "learn_power": True}, "power"),
        ({"eps": 0.001}, "eps"),
        ({"beta": 0.0}, "beta"),
        ({"tau": 0.0}, "tau"),
        ({"lambda_repulsion": -0.1}, "lambda_repulsion"),
        ({"repulsion_interval": 0}, "repulsion_interval"),
        ({"kernel": "antigravity"}, "kernel"),
        ({"kernel": "classic", "radius_mode": "soft"}, "classic"),
    ],
)
def test_wrong_values_are_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config(**given)


def test_coordinates_are_half_of_a_head_unless_set() -> None:
    assert config(width=64, heads=2).dimensions == 16
    assert config(width=24, heads=2).dimensions == 6
    assert config(width=20, heads=2).dimensions == 4  # half of ten, made even
    assert config(coords=6).dimensions == 6
    mixer = Model(config(width=64, heads=2)).blocks[0].mixer
    assert mixer.move.weight.shape == (2 * 2 * 16, 64)


@pytest.mark.parametrize(("preset", "parameters"), [("tiny", 5e5), ("25m", 25e6)])
def test_presets_build_on_the_meta_device(preset: str, parameters: float) -> None:
    from holo_cli.config import resolve

    made = resolve("ngt", preset=preset).model.model_copy(update={"vocab_size": 8192})
    assert isinstance(made, config_class("ngt"))
    with torch.device("meta"):
        model = Model(made)
    assert parameters < sum(p.numel() for p in model.parameters()) < 4 * parameters


def test_the_wikitext_preset_has_the_older_shape() -> None:
    from holo_cli.config import resolve

    found = resolve("ngt", preset="wikitext103-25m")
    model, training = found.model, found.training
    assert (model.layers, model.heads, model.width, model.context) == (8, 8, 512, 512)
    assert (model.dimensions, model.mlp_ratio * model.width) == (64, 2048)
    assert (training.batch_size, training.grad_accum, training.steps) == (16, 2, 15_000)
