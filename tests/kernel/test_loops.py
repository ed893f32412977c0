"""The innermost loops as compiled: nothing is spilled, and the expected instructions multiply."""

from __future__ import annotations

import pytest

from onefold.dev.assembly import ISAS, functions, in_registers, innermost
from onefold.dev.layers import LAYERS
from onefold.dev.loops import CORES, analyser, expected, limit, rows_for
from onefold.errors import OptionError
from onefold.target import find

TARGETS = ("arm64", "arm64+dotprod", "arm64+dotprod+i8mm", "x86-64-v3",
           "x86-64-v3+avxvnni", "x86-64-v4+avx512vnni")
LOOKED_AT = (
    "ResNet-50 conv 3x3, 64 of 56x56", "ResNet-50 conv 1x1, 1024 to 256 of 14x14",
    "ResNet-50 conv 3x3 by Winograd, 64 of 56x56", "MiniLM product, 128x384 by 384x384",
    "MiniLM attention, 12 heads of 32, 128 tokens", "ResNet-50 conv 1x1 int8, 64 to 256 of 56x56",
)  # fmt: skip

ARM = """\
\t.type\tnest,@function
nest:                                   // @nest
// %bb.0:
\tmov\tx8, xzr
.LBB0_1:                                // =>This Loop Header: Depth=1
\tmov\tx9, xzr
.LBB0_2:                                //   Parent Loop BB0_1 Depth=1
\tldr\tq0, [x0], #16
\tcbz\tx3, .LBB0_4
// %bb.3:
\tfmla\tv1.4s, v2.4s, v0.s[0]
\tfmla\tv3.4s, v2.4s, v0.s[1]
\tstr\tq3, [sp, #32]                      // 16-byte Folded Spill
.LBB0_4:                                //   in Loop: Header=BB0_2 Depth=2
\tadd\tx9, x9, #1
\tcmp\tx9, x1
\tb.ne\t.LBB0_2
// %bb.5:
\tadd\tx8, x8, #1
\tfmla\tv1.4s, v2.4s, v0.4s
\tcmp\tx8, x2
\tb.ne\t.LBB0_1
// %bb.6:
\tret
.Lfunc_end0:
\t.type\tnothing,@function
nothing:                                // @nothing
\tret
.Lfunc_end1:
"""

X86 = """\
\t.type\trow,@function
row:                                    # @row
.LBB0_1:                                # =>This Inner Loop Header: Depth=1
\tvbroadcastss\t(%rdi,%rax,4), %ymm2
\tvfmadd231ps\t(%rsi), %ymm2, %ymm0      # ymm0 = (ymm2 * mem) + ymm0
\tvfmadd231ps\t-32(%rsp), %ymm2, %ymm1   # 32-byte Folded Reload
\tincq\t%rax
\tcmpq\t%rax, %rdx
\tjne\t.LBB0_1
# %bb.2:
\tretq
.Lfunc_end0:
"""

PAIRS = """\
\t.type\tpairs,@function
pairs:                                  # @pairs
.LBB0_1:                                # =>This Inner Loop Header: Depth=1
\tvpbroadcastd\t(%rdi,%rax,4), %ymm2
\tvpmaddwd\t(%rsi), %ymm2, %ymm3
\tvpaddd\t%ymm3, %ymm0, %ymm0
\tvpmaddwd\t32(%rsi), %ymm2, %ymm2
\tvpaddd\t%ymm1, %ymm2, %ymm1
\tvpaddd\t%ymm4, %ymm1, %ymm4
\tvmovdqa\t(%rdx), %ymm3
\tvpaddd\t%ymm3, %ymm4, %ymm4
\tincq\t%rax
\tjne\t.LBB0_1
\tretq
.Lfunc_end0:
"""


def test_a_loop_that_contains_others_is_not_innermost() -> None:
    code = dict(functions(ARM))
    assert list(code) == ["nest", "nothing"]
    assert innermost(ISAS["aarch64"], "nothing", code["nothing"]) == []
    (loop,) = innermost(ISAS["aarch64"], "nest", code["nest"])
    assert len(loop.lines) == 8 and loop.stack == 1 and loop.sums == 2
    assert loop.kinds == ("fmla by element",)


def test_text_of_x86_is_read() -> None:
    ((name, lines),) = functions(X86)
    (loop,) = innermost(ISAS["x86_64"], name, lines)
    assert loop.kinds == ("vfmadd231ps",)
    assert (len(loop.products), loop.stack, loop.sums) == (2, 1, 2)


def test_what_adds_a_product_belongs_to_the_multiply_add() -> None:
    ((name, lines),) = functions(PAIRS)
    (loop,) = innermost(ISAS["x86_64"], name, lines)
    assert len(loop.products) == 2
    assert loop.arithmetic == loop.lines[1:5]
    ((name, lines),) = functions(X86)
    (fused,) = innermost(ISAS["x86_64"], name, lines)
    assert fused.arithmetic == fused.products
    assert in_registers(fused.products[1]) == "vfmadd231ps\t%ymm1, %ymm2, %ymm1"


@pytest.mark.parametrize(("model", "cycles"), [("haswell", 2.0), ("skylake", 4 / 3)])
def test_multiply_adds_alone_keep_the_units_at_work(model: str, cycles: float) -> None:
    """Haswell multiplies integers on one port of three, Skylake on two."""
    try:
        analyser()
    except OptionError as error:
        pytest.skip(str(error))
    ((name, lines),) = functions(PAIRS)
    (loop,) = innermost(ISAS["x86_64"], name, lines)
    assert limit(CORES[model], "x86_64", loop) == pytest.approx(cycles, abs=0.1)


@pytest.mark.toolchain
@pytest.mark.parametrize("target", TARGETS)
def test_main_loops_spill_nothing_and_multiply_as_expected(target: str) -> None:
    some = [x for x in LAYERS if x.name in LOOKED_AT]
    assert len(some) == len(LOOKED_AT)
    rows = [row for row, _ in rows_for(target, some)]
    assert {r.layer for r in rows} == set(LOOKED_AT)
    for row in rows:
        assert expected(find(target), row.asked)
        assert not row.problems(), row
        assert row.products >= 12
