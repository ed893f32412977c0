"""Step orders: valid, never worse than the given one, optimal where that can be checked."""

from __future__ import annotations

import itertools
import random

import pytest

from onefold.errors import PlanError
from onefold.plan.arena import lower_bound
from onefold.plan.order import Step, choose_order, peak_bytes
from tests.plan.families import NETWORKS, Network, live_blocks, random_network
from tests.work import must_end


def is_topological(steps: list[Step], order: tuple[int, ...]) -> bool:
    at = {s: k for k, s in enumerate(order)}
    writers: dict[int, list[int]] = {}
    for s, step in enumerate(steps):
        for v in step.writes:
            writers.setdefault(v, []).append(s)
    return sorted(order) == list(range(len(steps))) and all(
        at[p] < at[s] for s, step in enumerate(steps)
        for p in [*step.after, *(w for v in step.reads for w in writers.get(v, ()) if w != s)])


def best_by_exhaustion(steps: list[Step], sizes: list[int], live_in: set[int],
                       live_out: set[int]) -> int:
    return min(peak_bytes(order, steps, sizes, live_in, live_out)
               for order in itertools.permutations(range(len(steps)))
               if is_topological(steps, order))


def tiny(seed: int) -> Network:
    """Seven steps with what the larger families lack: shared writes, in-place, scratch, after."""
    rng = random.Random(seed)
    sizes, steps = [rng.randint(1, 40)], []
    for s in range(7):
        reads = tuple(rng.sample(range(len(sizes)), min(len(sizes), rng.randint(1, 2))))
        sizes.append(rng.randint(1, 40))
        write = len(sizes) - 1
        writes: tuple[int, ...] = (write,)
        if s and rng.random() < 0.2:
            sizes.append(rng.randint(1, 40))
            writes = (write, write + 1)
        in_place = ((reads[0], write),) if rng.random() < 0.4 else ()
        after = (rng.randrange(s),) if s and rng.random() < 0.15 else ()
        steps.append(Step(reads, writes, in_place, after, rng.choice((0, 0, 7))))
    read = {v for step in steps for v in step.reads}
    loose = [v for v in range(1, len(sizes)) if v not in read]
    return steps, sizes, {0}, set(rng.sample(loose, rng.randint(1, len(loose))))


@pytest.mark.parametrize("seed", range(60))
def test_tiny_graphs_reach_the_true_optimum(seed: int) -> None:
    steps, sizes, live_in, live_out = tiny(seed)
    order = choose_order(steps, sizes, live_in, live_out)
    assert is_topological(steps, order.steps)
    assert order.peak == best_by_exhaustion(steps, sizes, live_in, live_out)


@pytest.mark.parametrize("seed", range(6))
def test_concat_in_place_parts_reach_the_true_optimum(seed: int) -> None:
    """Several steps write parts of one value, whose bytes are needed from the first of them on."""
    rng = random.Random(seed)
    sizes = [10, 30] + [rng.randint(1, 40) for _ in range(3)]
    steps = [Step((0,), (2 + k,)) for k in range(3)] + [Step((2 + k,), (1,)) for k in range(3)]
    steps.append(Step((1,), (5,)))
    sizes.append(5)
    order = choose_order(steps, sizes, {0}, {5})
    assert is_topological(steps, order.steps)
    assert order.peak == best_by_exhaustion(steps, sizes, {0}, {5})


@pytest.mark.parametrize("name", NETWORKS)
def test_families_never_get_worse(name: str) -> None:
    steps, sizes, live_in, live_out = NETWORKS[name]()
    order = choose_order(steps, sizes, live_in, live_out)
    assert is_topological(steps, order.steps)
    assert order.file_peak == peak_bytes(range(len(steps)), steps, sizes, live_in, live_out)
    assert order.peak == peak_bytes(order.steps, steps, sizes, live_in, live_out)
    assert order.peak <= order.file_peak


@pytest.mark.parametrize("name", NETWORKS)
def test_peak_is_the_arena_bound_of_the_same_order(name: str) -> None:
    network = NETWORKS[name]()
    steps, sizes, live_in, live_out = network
    for order in (list(range(len(steps))),
                  list(choose_order(steps, sizes, live_in, live_out).steps)):
        blocks = live_blocks(network, order, align=1)
        assert lower_bound(blocks) == peak_bytes(order, steps, sizes, live_in, live_out)


def test_free_branches_are_put_in_the_better_order() -> None:
    steps, sizes, live_in, live_out = NETWORKS["inception"]()
    order = choose_order(steps, sizes, live_in, live_out)
    assert order.peak < 0.9 * order.file_peak


def test_interleaved_branches_are_run_one_after_the_other() -> None:
    """Written breadth first, eight branches hold eight large values; one at a time holds one."""
    steps = [Step((0,), (1 + k,)) for k in range(8)] + [Step((1 + k,), (9 + k,)) for k in range(8)]
    steps.append(Step(tuple(range(9, 17)), (17,)))
    sizes = [1] + [1000] * 8 + [1] * 8 + [1]
    order = choose_order(steps, sizes, {0}, {17})
    assert (order.file_peak, order.peak) == (8001, 1008)


def test_in_place_counts_only_where_the_read_dies() -> None:
    chain = [Step((0,), (1,), ((0, 1),)), Step((1,), (2,), ((1, 2),))]
    assert choose_order(chain, [100, 100, 100], {0}, {2}).peak == 100
    shared = [*chain[:1], Step((1,), (2,), ((1, 2),)), Step((1, 2), (3,))]
    assert choose_order(shared, [100, 100, 100, 1], {0}, {3}).peak == 201
    pinned = choose_order(chain, [100, 100, 100], {0}, {0, 2})
    assert pinned.peak == 200


def test_scratch_constants_and_unread_inputs() -> None:
    steps = [Step((0, 5), (1,), scratch=50), Step((1,), (2,))]
    sizes = [10, 20, 30, 40, 0, 10_000]
    assert choose_order(steps, sizes, {0}, {2}).peak == 80
    assert choose_order(steps, sizes, {0, 3}, {2}).peak == 120
    assert choose_order([], sizes, {0}, {0}).peak == 10


def test_effects_keep_their_order() -> None:
    """Reading a state must not move behind the step that overwrites it."""
    steps = [Step((0,), (1,)), Step((), (2,), after=(0,)), Step((1, 2), (3,))]
    order = choose_order(steps, [1, 100, 1, 1], {0}, {3})
    assert order.steps.index(0) < order.steps.index(1)


def test_an_order_that_is_not_topological_is_refused() -> None:
    with pytest.raises(PlanError, match="not in topological order") as error:
        choose_order([Step((1,), (2,)), Step((0,), (1,))], [1, 1, 1], {0}, {2})
    assert "step 0" in str(error.value) and "it needs step 1" in str(error.value)


@pytest.mark.parametrize(("count", "reach"), [(300, 8), (300, 40), (5000, 8), (5000, 200)])
def test_an_end_and_repeatability(count: int, reach: int) -> None:
    steps, sizes, live_in, live_out = random_network(count, 5, reach)
    with must_end(120):
        order = choose_order(steps, sizes, live_in, live_out)
    assert is_topological(steps, order.steps) and order.peak <= order.file_peak
    if count == 300:
        assert order == choose_order(steps, sizes, live_in, live_out)
