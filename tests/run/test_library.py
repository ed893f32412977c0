"""Calling compiled programs: results, state, errors, threads."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from onefold.errors import InputError, RunError
from onefold.run.library import ALIGN, ArenaPool, Block, Call, Library, Weights, address
from tests.run import programs

pytestmark = pytest.mark.toolchain

WEIGHTS = np.array([1, 2, 3, 4], np.float32)
SPIN = """\
#include <stdint.h>
__attribute__((visibility("default")))
int32_t PREFIX_run(void *arena, const void *weights, void *state, const void *const *inputs,
                   void *const *outputs, int64_t *dims) {
  volatile int32_t *t = arena;
  const int32_t mark = *(const int32_t *)inputs[0];
  for (int64_t i = 0; i < dims[0]; i++) { *t = mark; if (*t != mark) return 1; }
  *(int32_t *)outputs[0] = *t;
  return 0;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library")
    programs.build(path, "p")
    programs.build(path, "spin", SPIN)
    (path / "weights").write_bytes(WEIGHTS.tobytes())
    return path


@pytest.fixture
def library(folder: Path) -> Library:
    return Library(folder / "p.so", "p", ("conv1", "relu1", "gather2"))


def expected(x: np.ndarray) -> np.ndarray:
    return x * np.resize(WEIGHTS, x.shape)


def test_a_call_computes_and_counts(library: Library, folder: Path) -> None:
    x, y, state = np.arange(100, dtype=np.float32), np.zeros(100, np.float32), Block(64)
    call = Call(library, Block(400), Weights(folder / "weights"), state, [x], [y], [100, 0])
    call()
    assert (y == expected(x)).all() and call.dims[1] == 1
    x += 1  # bound, not copied
    call()
    assert (y == expected(x)).all() and call.dims[1] == 2
    state.fill(b"")
    call()
    assert call.dims[1] == 1


def test_other_arrays_can_be_bound(library: Library, folder: Path) -> None:
    x, y = np.ones(8, np.float32), np.zeros(8, np.float32)
    call = Call(library, Block(64), Weights(folder / "weights"), None, [x], [y], [8])
    other, result = np.full(8, 5, np.float32), np.zeros(8, np.float32)
    call.set_input(0, other)
    call.set_output(0, result)
    del other
    gc.collect()
    call()
    assert (result == 5 * np.resize(WEIGHTS, 8)).all() and not y.any()


def test_an_error_names_the_layer_and_the_reason(library: Library, folder: Path) -> None:
    x, y = np.ones(8, np.float32), np.zeros(8, np.float32)
    call = Call(library, Block(64), Weights(folder / "weights"), None, [x], [y], [-1])
    with pytest.raises(RunError) as caught:
        call()
    assert "where: layer 'gather2'" in str(caught.value)
    assert "why:   index out of range" in str(caught.value)


@pytest.mark.parametrize(("code", "text"), [
    (1, "layer 'conv1'"), (18, "index out of range"), (16 * 50 + 1, "layer 'step 50'"),
    (16, "error number 16"), (-7, "error number -7")])
def test_error_numbers(library: Library, code: int, text: str) -> None:
    assert text in str(library.error(code))


def test_a_missing_entry_and_a_broken_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="undefined symbol: other_run"):
        Library(folder / "p.so", "other")
    (tmp_path / "bad.so").write_bytes(b"no library")
    with pytest.raises(RunError, match="cannot be loaded"):
        Library(tmp_path / "bad.so", "p")


@pytest.mark.parametrize("array", [
    np.zeros((4, 4), np.float32)[:, ::2], np.zeros(4, ">f4"),
    np.zeros(17, np.uint8)[1:].view(np.float32)])
def test_arrays_that_cannot_be_used_in_place(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="contiguous"):
        address(array)


def test_an_output_must_be_writable() -> None:
    array = np.zeros(4, np.float32)
    array.flags.writeable = False
    assert address(array)
    with pytest.raises(InputError, match="writable"):
        address(array, write=True)


def test_blocks_are_aligned_and_cleared() -> None:
    for size in (0, 1, 100, 3 << 20):
        block = Block(size)
        assert block.address % ALIGN == 0 and block.size == size
    block.fill(b"abc")
    assert bytes(block._map[:4]) == b"abc\0"
    with pytest.raises(ValueError, match="do not fit"):
        Block(2).fill(b"abc")


def test_weights_may_be_absent_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert Weights(None).address == Weights(tmp_path / "empty").address == 0


def test_arenas_are_reused_and_bounded() -> None:
    pool = ArenaPool(100, keep=2)
    first = pool.take()
    pool.give(first)
    assert pool.take() is first
    blocks = [Block(100) for _ in range(5)]
    for block in blocks:
        pool.give(block)
    assert len(pool._free) == 2


def test_threads_run_at_once_each_in_its_own_arena(folder: Path) -> None:
    library, pool, wrong = Library(folder / "spin.so", "spin"), ArenaPool(64), []

    def work(mark: int) -> None:
        x, y = np.array([mark], np.int32), np.zeros(1, np.int32)
        for _ in range(50):
            with pool.arena() as arena:
                Call(library, arena, Weights(None), None, [x], [y], [20000])()
            if y[0] != mark:
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_interpreter_goes_on_during_a_call(folder: Path) -> None:
    x, y = np.array([1], np.int32), np.zeros(1, np.int32)
    library = Library(folder / "spin.so", "spin")
    call = Call(library, Block(64), Weights(None), None, [x], [y], [400_000_000])
    thread = threading.Thread(target=call)
    thread.start()
    turns = 0
    while thread.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 10
