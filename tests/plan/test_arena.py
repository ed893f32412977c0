"""The arena planner against its bound, against brute force, and its verifier against bad plans."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onefold.errors import PlanError
from onefold.plan.arena import ArenaPlan, Block, lower_bound, plan_arena, verify
from onefold.plan.picture import picture, svg
from tests.plan.families import NETWORKS, cut_rectangle, live_blocks, random_blocks, random_network
from tests.work import must_end


def within(plan: ArenaPlan, share: float = 0.05) -> bool:
    return plan.size <= plan.lower_bound + max(share * plan.lower_bound, 1024)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_families_stay_within_five_percent(name: str) -> None:
    blocks = live_blocks(NETWORKS[name]())
    plan = plan_arena(blocks)
    verify(blocks, plan)
    assert within(plan), f"{plan.excess:.2%} above the bound"


@pytest.mark.parametrize("name", ["mobilenet", "unet", "unet deep", "densenet", "inception"])
def test_regular_networks_reach_the_bound(name: str) -> None:
    plan = plan_arena(live_blocks(NETWORKS[name]()))
    assert plan.size == plan.lower_bound


@pytest.mark.parametrize(("count", "span", "life"), [
    (300, 300, 12), (300, 300, 40), (300, 60, 30), (1000, 1000, 12), (3000, 3000, 12),
    (3000, 3000, 60)])
def test_random_lifetimes_stay_within_five_percent(count: int, span: int, life: int) -> None:
    blocks = random_blocks(count, span, 1, life)
    with must_end(120):
        plan = plan_arena(blocks)
    verify(blocks, plan)
    assert within(plan), f"{plan.excess:.2%} above the bound"


@pytest.mark.parametrize(("count", "seed", "share"), [
    (10, 1, 0.0), (10, 2, 0.0), (20, 1, 0.0), (20, 2, 0.0), (30, 1, 0.0), (50, 1, 0.05),
    (50, 2, 0.0), (100, 1, 0.15), (100, 2, 0.1)])
def test_perfect_packings(count: int, seed: int, share: float) -> None:
    """The hardest kind: the best possible plan has no free byte at any step."""
    blocks = cut_rectangle(count, seed)
    plan = plan_arena(blocks)
    verify(blocks, plan)
    assert plan.lower_bound == 100_000
    assert plan.size <= plan.lower_bound * (1 + share)


def fits(blocks: list[Block], size: int) -> bool:
    """Exact: tries every way to stack the blocks in order of their offsets, lowest first.

    In a plan in which nothing can sink, each block lies directly on one of its rivals or at zero,
    so that stacking in order of offset misses no size that can be reached.
    """
    def stack(placed: list[tuple[Block, int]], left: list[Block]) -> bool:
        lowest = {b.id: lowest_place(placed, b) for b in left}
        if any(lowest[b.id] + b.aligned > size for b in left):
            return False
        floor = placed[-1][1] if placed else 0
        return not left or any(
            lowest[b.id] >= floor and stack([*placed, (b, lowest[b.id])],
                                            [x for x in left if x is not b]) for b in left)

    def lowest_place(placed: list[tuple[Block, int]], b: Block) -> int:
        at = max((o + x.aligned for x, o in placed
                  if x.first <= b.last and b.first <= x.last), default=0)
        return -(-at // b.align) * b.align

    return stack([], blocks)


def test_where_no_plan_reaches_the_bound_the_optimum_is_found() -> None:
    rows = [(4, 4, 5), (2, 1, 3), (4, 5, 5), (3, 1, 4), (2, 0, 0), (1, 3, 4), (1, 3, 3), (1, 2, 5),
            (2, 2, 2), (3, 1, 1), (1, 1, 3)]
    blocks = [Block(i, *row, 1) for i, row in enumerate(rows)]
    assert lower_bound(blocks) == 9 and not fits(blocks, 9)
    assert plan_arena(blocks).size == 10


@pytest.mark.parametrize("seed", range(25))
def test_tiny_instances_reach_the_true_optimum(seed: int) -> None:
    blocks = [replace(b, size=b.size % 900 + 1) for b in random_blocks(8, 8, seed, 5)]
    plan = plan_arena(blocks)
    verify(blocks, plan)
    # The search ends less than one alignment step above the bound, else it must be optimal.
    assert plan.size < plan.lower_bound + 64 or not fits(blocks, plan.size - 64)


blocks_strategy = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 12),
              st.sampled_from((1, 4, 16, 64, 256))), max_size=40).map(
    lambda rows: [Block(i, size, first, first + life, align)
                  for i, (size, first, life, align) in enumerate(rows)])


@settings(max_examples=60, deadline=None)
@given(blocks_strategy)
def test_any_blocks_give_a_valid_repeatable_plan(blocks: list[Block]) -> None:
    plan = plan_arena(blocks, effort=20_000)
    verify(blocks, plan)
    assert plan.lower_bound <= plan.size <= sum(b.aligned + b.align for b in blocks)
    assert plan == plan_arena(blocks, effort=20_000)


@settings(max_examples=60, deadline=None)
@given(blocks_strategy)
def test_lower_bound_is_the_fullest_step(blocks: list[Block]) -> None:
    fullest = max((sum(b.aligned for b in blocks if b.first <= t <= b.last) for t in range(50)),
                  default=0)
    assert lower_bound(blocks) == fullest


@settings(max_examples=60, deadline=None)
@given(blocks_strategy, st.data())
def test_moving_a_block_is_caught_exactly_when_bytes_are_shared(
        blocks: list[Block], data: st.DataObject) -> None:
    """The verifier agrees with a comparison of all pairs, byte range by byte range."""
    plan = plan_arena(blocks, effort=5_000)
    offsets = {b.id: data.draw(st.sampled_from((plan.offsets[b.id], 0))) for b in blocks}
    clash = any(
        a.first <= b.last and b.first <= a.last
        and max(offsets[a.id], offsets[b.id]) < min(offsets[a.id] + a.size, offsets[b.id] + b.size)
        for a, b in itertools.combinations(blocks, 2))
    moved = replace(plan, offsets=offsets)
    if clash:
        with pytest.raises(PlanError, match="overlap"):
            verify(blocks, moved)
    else:
        verify(blocks, moved)


def test_pairs_that_may_share_do_and_lower_the_bound() -> None:
    blocks = [Block(0, 1024, 0, 3), Block(1, 1024, 1, 4), Block(2, 512, 0, 4)]
    share = {frozenset((0, 1))}
    plan = plan_arena(blocks, share)
    assert plan.size == plan.lower_bound == 1536
    verify(blocks, plan, share)
    with pytest.raises(PlanError, match="blocks 0 and 1 overlap"):
        verify(blocks, plan)


def test_overlap_names_both_blocks_and_the_step() -> None:
    blocks = [Block(7, 100, 0, 5), Block(9, 100, 4, 8)]
    plan = ArenaPlan({7: 0, 9: 64}, 256, 256, "by hand")
    with pytest.raises(PlanError) as error:
        verify(blocks, plan)
    text = str(error.value)
    assert "blocks 7 and 9 overlap" in text and "step 4" in text
    assert "block 7 (100 bytes, steps 0 to 5) at offset 0" in text


@pytest.mark.parametrize(("offsets", "size", "text"), [
    ({0: 0}, 256, "block 1 has no place"),
    ({0: 0, 1: 100}, 256, "not a multiple of its alignment 64"),
    ({0: 0, 1: -64}, 256, "not a multiple"),
    ({0: 0, 1: 128}, 200, "beyond the arena's 200 bytes"),
])
def test_verifier_refuses(offsets: dict[int, int], size: int, text: str) -> None:
    blocks = [Block(0, 100, 0, 1), Block(1, 100, 1, 2)]
    with pytest.raises(PlanError, match=text):
        verify(blocks, ArenaPlan(offsets, size, 0, "by hand"))


@pytest.mark.parametrize("bad", [
    [Block(0, 1, 0, 0), Block(0, 1, 1, 1)], [Block(0, -1, 0, 0)], [Block(0, 1, 2, 1)],
    [Block(0, 1, 0, 0, 0)]])
def test_malformed_blocks_are_refused(bad: list[Block]) -> None:
    with pytest.raises(PlanError, match="block 0"):
        plan_arena(bad)


def test_empty_and_zero_sized() -> None:
    assert plan_arena([]).size == 0
    blocks = [Block(0, 0, 0, 3), Block(1, 10, 0, 3)]
    plan = plan_arena(blocks)
    verify(blocks, plan)
    assert plan.size == 64 and plan.offsets == {0: 0, 1: 0}


def test_picture_shows_blocks_where_and_when_they_live() -> None:
    blocks = [Block(0, 640, 0, 1), Block(1, 640, 1, 2)]
    plan = ArenaPlan({0: 0, 1: 640}, 1280, 1280, "by hand")
    lines = picture(blocks, plan, width=20, height=10, labels={1: "con\nv1"}).splitlines()
    assert [line[8:28] for line in lines[1:4]] == [
        "A" * 10 + "." * 10, "A" * 10 + "B" * 10, "." * 10 + "B" * 10]
    assert "1,280 bytes (lower bound 1,280)" in lines[0]
    assert lines[5].endswith("con\\nv1") and len(lines) == 6
    assert picture([], plan_arena([])) == "empty arena\n"


def test_picture_keeps_to_its_size_and_svg_escapes() -> None:
    blocks = live_blocks(random_network(300, 4))
    plan = plan_arena(blocks, effort=10_000)
    rows = [line for line in picture(blocks, plan, 60, 25).splitlines() if line.endswith("|")]
    assert len(rows) <= 25 and {len(row) for row in rows} == {6 + 2 + 60 + 1}
    drawing = svg(blocks, plan, labels={blocks[0].id: "</title><script>"})
    assert drawing.count("<rect") == len(blocks) + 1
    assert "<script>" not in drawing and "&lt;script&gt;" in drawing
