"""From a program to C sources: readable, every symbol with the model's prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from onefold.codegen.meetings import must_meet
from onefold.codegen.team import BYTES, HEADER
from onefold.codegen.text import c_comment, c_name, dim_text
from onefold.ir import dims
from onefold.ir.dims import Sym
from onefold.plan.program import AnyStep, Buffer, IfStep, Kernel, LoopStep, Program, Step, flat

UNIT_KERNELS = 24  # kernels in one compile unit, so that units compile in parallel


@dataclass(frozen=True)
class Sources:
    """Generated files by name; labels[k] tells what the step with error number k is."""

    prefix: str
    files: dict[str, str]
    units: tuple[str, ...]  # those of the files that are compiled
    labels: tuple[str, ...]


class Names:
    """A C function for every distinct kernel."""

    def __init__(self, prefix: str, steps: Sequence[Step]) -> None:
        self.prefix = prefix
        self.names: dict[Kernel, str] = {}
        for s in steps:
            if s.kernel not in self.names:
                self.names[s.kernel] = f"{prefix}_{c_name(s.op).lower()}_{len(self.names)}"


def emit(program: Program, prefix: str, profile: bool = False) -> Sources:
    """All sources of a program. profile: with a count of the time of each step."""
    steps = list(program.flat())
    names = Names(prefix, steps)
    kernels = list(names.names)
    files: dict[str, str] = {}
    units: list[str] = []
    split = [kernels[i : i + UNIT_KERNELS] for i in range(0, len(kernels), UNIT_KERNELS)]
    alone = len(split) <= 1
    for k, part in enumerate([] if alone else split):
        unit = f"{prefix}_kernels{k}.c"
        files[unit] = _unit(part, names)
        units.append(unit)
    files[f"{prefix}.h"] = header(program, prefix)
    kind = _Main if program.threads == 1 else _TeamMain
    main = kind(program, prefix, names, kernels if alone else [], profile)
    files[f"{prefix}.c"] = main.text()
    units.insert(0, f"{prefix}.c")
    labels = (*(str(s.origin) or s.op for s in steps), "sizes and loops")
    return Sources(prefix, files, tuple(units), labels)


def _signature(k: Kernel, name: str, linkage: str) -> str:
    params = []
    for p in k.params:
        # A type written with a trailing space may share its memory with another parameter.
        shared = p.ctype.endswith(" ")
        qualifier = "" if shared else "restrict "
        params.append(f"{'const ' if p.const else ''}{p.ctype.strip()} *{qualifier}{p.name}")
    params += [f"ix {s}" for s in k.sizes] + [f"ix *o_{s}" for s in k.outs]
    params += [f"{p.ctype} {p.name}" for p in k.numbers]
    if k.stops:
        params.append("int32_t *err")
    if k.split:
        params.append("struct of_part me")
    if k.streams:
        params.append("const void *next")
    return f"{linkage}void {name}({', '.join(params) or 'void'})"


def _definition(k: Kernel, name: str, linkage: str) -> str:
    body = "\n".join("  " + line if line else "" for line in k.body.split("\n"))
    return f"{_signature(k, name, linkage)} {{\n{body}\n}}\n"


def _includes(kernels: Sequence[Kernel], *more: str) -> str:
    extra = sorted({*more, *(i for k in kernels for i in k.includes)})
    return "".join(f'#include "{i}"\n' for i in ["of_program.h", *extra])


def _unit(kernels: Sequence[Kernel], names: Names) -> str:
    parts = [_includes(kernels)]
    parts += [_definition(k, names.names[k], "OF_HIDDEN ") for k in kernels]
    return "\n".join(parts)


def header(program: Program, prefix: str) -> str:
    """The interface of the model: sizes, inputs and outputs, and the one function."""
    up = prefix.upper()
    lines = [
        f"// {c_comment(program.name)}",
        "#pragma once",
        "#include <stdint.h>",
        "",
        f"#define {up}_ARENA_BYTES {program.arena_bytes}",
        f"#define {up}_ARENA_ALIGN 64",
        *(
            f"#define {up}_ARENA{k}_BYTES {a.bytes}  // in the memory '{c_comment(a.space)}'"
            for k, a in enumerate(program.arenas) if a.space
        ),
        f"#define {up}_WEIGHTS_BYTES {program.weights_bytes}",
        f"#define {up}_STATE_BYTES {program.state_bytes}",
        f"#define {up}_INPUTS {len(program.inputs)}",
        f"#define {up}_OUTPUTS {len(program.outputs)}",
        f"#define {up}_DIMS {len(program.dims) + len(program.found)}",
    ]
    for what, ports in (("INPUT", program.inputs), ("OUTPUT", program.outputs)):
        for k, port in enumerate(ports):
            lines.append(
                f"#define {up}_{what}{k}_BYTES {port.buffer.bytes}"
                f"  // {c_comment(port.name)}: {c_comment(repr(port.type))}"
            )
    for k, s in enumerate([*program.dims, *program.found]):
        kept = f"; begin with {s.lo}, keep it from call to call" if s.name in program.grown else ""
        lines.append(f"// dims[{k}]: {s.name}, {s.lo} to {s.hi}{kept}")
    lines += [
        "",
        "// Puts the initial contents into the state; call it once before the first run.",
        f"void {prefix}_state_init(void *state);",
        "",
        "// Returns 0, or 1 + 16 * (number of the step) + the reason why it stopped.",
        f"int32_t {prefix}_run({_arena_parameter(program)}, const void *weights, void *state,",
        "                  const void *const *inputs, void *const *outputs, int64_t *dims);",
        "",
    ]
    if program.threads > 1:
        lines += [_threads_header(program, prefix), ""]
    return "\n".join(lines)


def _threads_header(program: Program, prefix: str) -> str:
    up = prefix.upper()
    return f"""\
// The same on {program.threads} threads, which are yours. A team is {up}_TEAM_BYTES of memory,
// aligned to 64 and zeroed; helpers are threads that call {prefix}_work(team, part),
// part = 1 to {program.threads - 1}, which returns after {prefix}_end(team). Without a call to help
// with, they sleep. A call takes the helpers that are there, and does without them while another
// call has them; {prefix}_helpers(team) counts those that are there. Any number of models may share
// a team.
#define {up}_THREADS {program.threads}
#define {up}_TEAM_BYTES {BYTES}
int32_t {prefix}_run_team(void *team, {_arena_parameter(program)}, const void *weights, void *state,
                  const void *const *inputs, void *const *outputs, int64_t *dims);
void {prefix}_work(void *team, int32_t part);
int32_t {prefix}_helpers(void *team);
void {prefix}_end(void *team);"""


def _arena_parameter(program: Program) -> str:
    """One pointer, or one for each memory that the arena is spread over."""
    return "void *arena" if len(program.arenas) <= 1 else "void *const *arenas"


def _arena_pointers(program: Program) -> str:
    if len(program.arenas) <= 1:
        return "  uint8_t *const a = arena;\n"
    return "".join(
        f"  uint8_t *const a{k or ''} = arenas[{k}];  // '{c_comment(a.space)}'\n"
        for k, a in enumerate(program.arenas)
    )


class _Main:
    """Text of the file with the run function."""

    headers: tuple[str, ...] = ()

    def __init__(
        self, program: Program, prefix: str, names: Names, kernels: Sequence[Kernel],
        profile: bool,
    ) -> None:  # fmt: skip
        self.program, self.prefix, self.names, self.kernels = program, prefix, names, kernels
        self.profile = profile
        self.number = 0
        self.total = sum(1 for _ in program.flat())
        self.bad_size = f"{1 + 16 * self.total} + OF_BAD_SIZE"
        fetching = [s for s in program.flat() if s.kernel.streams]
        self.later = {id(s): fetching[k + 1 - len(fetching)] for k, s in enumerate(fetching)}

    def text(self) -> str:
        p = self.program
        top = f"// {c_comment(p.name)}"
        out = [top, _includes(self.kernels, *self.headers), f'#include "{self.prefix}.h"', ""]
        for kernel, name in self.names.names.items():
            if kernel in self.kernels:
                out.append(_definition(kernel, name, "static "))
            else:
                out.append(_signature(kernel, name, "OF_HIDDEN ") + ";")
        out.append(self._memory())
        if self.profile:
            out.append(
                f'#include "of_tick.h"\nstatic uint64_t ticks[{self.total + 1}];\n'
                f"OF_PUBLIC uint64_t *{self.prefix}_ticks(void) {{\n"
                f"  ticks[{self.total}] = of_tick();\n  return ticks;\n}}\n"
            )
        out += self.run()
        out += self._state_init()
        return "\n".join(out)

    def run(self) -> list[str]:
        """The function that runs the program."""
        return [
            f"OF_PUBLIC int32_t {self.prefix}_run({_arena_parameter(self.program)}, "
            "const void *weights, void *state,\n"
            "    const void *const *inputs, void *const *outputs, int64_t *dims) {\n"
            f"{_arena_pointers(self.program)}  const uint8_t *const w = weights;\n"
            "  uint8_t *const s = state;\n  int32_t err = 0;\n"
            "  (void)a, (void)w, (void)s, (void)inputs, (void)outputs, (void)dims, (void)err;",
            *self.sizes(), *self.block(self.program.steps, "  "), *self.give_sizes("  "),
            "  return 0;\n}\n",
        ]  # fmt: skip

    def sizes(self) -> list[str]:
        """Statements that declare the sizes, given and found, and check the given ones."""
        out: list[str] = []
        p = self.program
        for k, d in enumerate(p.dims):
            out.append(f"  const ix {d.name} = dims[{k}];")
            out.append(
                f"  if ({d.name} < {dim_text(d.lo)} || {d.name} > {dim_text(d.hi)}) "
                f"return {self.bad_size};"
            )
        for d in p.dims:
            if d.name in p.grown:
                text = dim_text(p.grown[d.name])
                out.append(f"  if ({text} > {dim_text(d.hi)}) return {self.bad_size};")
        return [*out, *(f"  ix {d.name} = 0;" for d in p.found)]

    def give_sizes(self, pad: str) -> list[str]:
        """Statements that write the sizes that the caller receives."""
        p = self.program
        out = [f"{pad}dims[{len(p.dims) + k}] = {d.name};" for k, d in enumerate(p.found)]
        grown = p.grown
        for k, d in enumerate(p.dims):
            if d.name in grown:
                size = dim_text(grown[d.name])
                out.append(f"{pad}dims[{k}] = {size};  // size of a state, from now on")
        return out

    def _state_init(self) -> list[str]:
        p = self.program
        out = [f"OF_PUBLIC void {self.prefix}_state_init(void *state) {{", "  uint8_t *s = state;"]
        out.append(f"  for (ix i = 0; i < {p.state_bytes}; i++) s[i] = 0;")
        for _, b, data in p.states:
            if data is not None and data.any():
                raw = ",".join(str(x) for x in data.tobytes())
                out.append(f"  static const uint8_t initial{b.index}[] = {{{raw}}};")
                out.append(
                    f"  for (ix i = 0; i < {data.nbytes}; i++) "
                    f"s[{b.offset} + i] = initial{b.index}[i];"
                )
        return [*out, "}", ""]

    def _memory(self) -> str:
        lines = [f"// arena: {self.program.arena_bytes} bytes", "//   offset     bytes"]
        for b in self.program.buffers:
            if b.kind == "arena" and b.parent is None:
                what = f"{c_comment(b.name, 60)} {c_comment(repr(b.type), 60)}"
                lines.append(f"// {b.offset:8d} {b.bytes:9d}  {what}")
        return "\n".join(lines)

    def pointer(self, b: Buffer, ctype: str, const: bool) -> str:
        root, start = b.root, b.start
        star = f"({'const ' if const else ''}{ctype.strip()} *)"
        if root.kind == "input":
            base = f"inputs[{root.index}]"
            return f"{star}{base}" if not start else f"{star}((const char *){base} + {start})"
        if root.kind == "output":
            base = f"outputs[{root.index}]"
            return f"{star}{base}" if not start else f"{star}((char *){base} + {start})"
        where = {"arena": "a", "const": "w", "state": "s"}[root.kind]
        if root.kind == "arena":
            where += str([a.space for a in self.program.arenas].index(root.space) or "")
        return f"{star}({where} + {dim_text(root.offset + start)})"

    def block(self, steps: Sequence[AnyStep], pad: str) -> list[str]:
        out: list[str] = []
        for s in steps:
            if isinstance(s, Step):
                out += [pad + line for line in self.call(s)]
            elif isinstance(s, IfStep):
                out += self._if(s, pad)
            else:
                out += self._loop(s, pad)
        return out

    def call(self, s: Step) -> list[str]:
        args = [
            self.pointer(b, p.ctype, p.const)
            for b, p in zip(s.args, s.kernel.params, strict=True)
        ]
        args += [d.name for d in s.sizes] + [f"&{d.name}" for d in s.outs] + list(s.numbers)
        number = self.number
        self.number += 1
        shape = repr(s.writes[0].type) if s.writes else ""
        comment = f"  // {c_comment(str(s.origin), 60)} -> {c_comment(shape, 50)}"
        if s.kernel.stops:
            args.append("&err")
        if s.kernel.split:
            args.append("me")
        if s.kernel.streams:
            args.append(self._read_next(s))
        lines = [f"{self.names.names[s.kernel]}({', '.join(args)});{comment}"]
        if self.profile:
            lines = [f"ticks[{number}] -= of_tick();", *lines, f"ticks[{number}] += of_tick();"]
        if s.kernel.stops:
            lines.append(f"if (err) {self.leave(f'{1 + 16 * number} + err')}")
        return lines

    def _read_next(self, s: Step) -> str:
        """The address of the weights that the next kernel which fetches them ahead begins with."""
        s = self.later[id(s)]
        assert s.kernel.streams
        name, by_parts = s.kernel.streams
        k = next(i for i, p in enumerate(s.kernel.params) if p.name == name)
        b = s.args[k]
        share = f" + {b.bytes} / me.parts * me.part" if by_parts else ""
        return self.pointer(b, "char", True) + share

    def leave(self, code: str) -> str:
        """The statement that ends the program with an error."""
        return f"return {code};"

    def _if(self, s: IfStep, pad: str) -> list[str]:
        inner = pad + "  "
        out = [f"{pad}if (*{self.pointer(s.cond, 'bool', True)}) {{  // {c_comment(str(s.origin))}"]
        out += self.block(s.then, inner) + self._sizes(s.then_sizes, inner)
        out.append(f"{pad}}} else {{")
        out += self.block(s.otherwise, inner) + self._sizes(s.otherwise_sizes, inner)
        return [*out, pad + "}"]

    def _sizes(self, sizes: Sequence[tuple[Sym, dims.Dim]], pad: str) -> list[str]:
        return [f"{pad}{s.name} = {dim_text(d)};" for s, d in sizes]

    def decided(self, pad: str) -> list[str]:
        """What stands behind a decision by what lies in memory."""
        return []

    def guard(self, cond: str, pad: str) -> tuple[str, list[str]]:
        """What keeps a loop going: text in its head, statements at the start of its body."""
        return f" && {cond}", []

    def written(self, line: str, pad: str) -> list[str]:
        """A statement that writes what others read."""
        return [pad + line]

    def _loop(self, s: LoopStep, pad: str) -> list[str]:
        inner = pad + "  "
        turn = f"turn{self.number}"
        if isinstance(s.trips, Buffer):
            limit = f"*{self.pointer(s.trips, 'int64_t', True)}"
        else:
            limit = "INT64_MAX" if s.trips is None else dim_text(s.trips)
        out = [f"{pad}const int64_t {turn}_end = {limit};", *self.decided(pad)]
        cond = "" if s.cond is None else f"*{self.pointer(s.cond, 'bool', True)}"
        guard, first = self.guard(cond, inner) if cond else ("", [])
        out.append(
            f"{pad}for (int64_t {turn} = 0; {turn} < {turn}_end{guard}; {turn}++) {{"
            f"  // {c_comment(str(s.origin))}"
        )
        out += first
        if s.limit < 1 << 62:
            failed = f"{1 + 16 * self.total} + OF_LOOP_LIMIT"
            out.append(f"{inner}if ({turn} >= {s.limit}) {self.leave(failed)}")
        if s.counter is not None:
            counter = f"*{self.pointer(s.counter, 'int64_t', False)} = {turn};"
            out += self.written(counter, inner)
        if s.turns is not None:
            out.append(f"{inner}{s.turns.name} = {turn};")
        start = [f"{inner}ix next_{k.name};" for k, _, _ in s.sizes]
        out += start + self.block(s.body, inner)
        out += [f"{inner}next_{k.name} = {dim_text(d)};" for k, _, d in s.sizes]
        out += [f"{inner}{k.name} = next_{k.name};" for k, _, _ in s.sizes]
        if s.turns is not None:
            out.append(f"{inner}{s.turns.name} = {turn} + 1;")
        before = [f"{pad}{k.name} = {dim_text(d)};" for k, d, _ in s.sizes]
        if s.turns is not None:
            before.append(f"{pad}{s.turns.name} = 0;")
        return [*before, *out, pad + "}"]


WAIT = "if (of_wait(me)) return 0;"


class _TeamMain(_Main):
    """The same for several threads, each of which runs all of the steps: it computes its share of
    those that are split, and part 0 computes the others. Who reads what another has written, or
    writes what another has read, waits in between; everyone takes the same way through branches
    and loops. With a count of time they meet behind every step, so that it is the time of all."""

    headers = (HEADER,)

    def __init__(
        self, program: Program, prefix: str, names: Names, kernels: Sequence[Kernel],
        profile: bool,
    ) -> None:  # fmt: skip
        super().__init__(program, prefix, names, kernels, profile)
        self.alone = False  # whether only part 0 gets to the text that is being written
        self.left = False  # whether that text may end the program
        self.places = 0  # names made so far
        self.open: list[Step] = []  # steps since all have met
        self.found = {s.name: k for k, s in enumerate(program.found)}

    def run(self) -> list[str]:
        p, name = self.program, self.prefix
        arena = "arena" if len(p.arenas) <= 1 else "arenas"
        given = f"{_arena_parameter(p)}, const void *weights, void *state"
        ports = "const void *const *inputs, void *const *outputs, int64_t *dims"
        names = f"{arena}, weights, state, inputs, outputs, dims"
        fields = "; ".join(f"{given}, {ports}".split(", "))
        found = f" ix found[{len(p.found)}];" if p.found else ""
        head = self.sizes()
        steps = self.block(p.steps, "  ")
        sizes = self.give_sizes("    ")
        if not sizes and steps[-1] == "  " + WAIT:
            steps.pop()  # who runs the steps waits at their end
        star = "void *const" if len(p.arenas) <= 1 else "void *const *const"
        return [
            f"struct {name}_call {{ {fields};{found} }};\n"
            f"_Static_assert(sizeof(struct of_team) <= {name.upper()}_TEAM_BYTES,"
            ' "room for a team");\n',
            f"static int32_t {name}_steps(void *call, struct of_part me) {{\n"
            f"  struct {name}_call *const c = call;\n  {star} {arena} = c->{arena};\n"
            "  const void *const *const inputs = c->inputs;\n"
            "  void *const *const outputs = c->outputs;\n  int64_t *const dims = c->dims;\n"
            f"{_arena_pointers(p)}  const uint8_t *const w = c->weights;\n"
            "  uint8_t *const s = c->state;\n  int32_t err = 0;\n"
            "  (void)a, (void)w, (void)s, (void)inputs, (void)outputs, (void)dims, (void)err;",
            *head, *steps,
            *(["  if (me.part == 0) {", *sizes, "  }"] if sizes else []),
            "  return 0;\n}\n",
            f"OF_PUBLIC int32_t {name}_run_team(void *team, {given},\n    {ports}) {{\n"
            f"  struct {name}_call c = {{{names}}};\n"
            f"  return of_run(team, {p.threads}, {name}_steps, &c);\n}}\n",
            f"OF_PUBLIC int32_t {name}_run({given},\n    {ports}) {{\n"
            f"  return {name}_run_team(0, {names});\n}}\n",
            f"OF_PUBLIC void {name}_work(void *team, int32_t part) {{ of_work(team, part); }}",
            f"OF_PUBLIC int32_t {name}_helpers(void *team) {{ "
            "return of_helpers(team, OF_TEAM_MAX); }",
            f"OF_PUBLIC void {name}_end(void *team) {{ of_end(team); }}\n",
        ]  # fmt: skip

    def block(self, steps: Sequence[AnyStep], pad: str) -> list[str]:
        if self.alone:
            return super().block(steps, pad)
        out: list[str] = []
        for shared, group in groupby(steps, _is_shared):
            some = list(group)
            if not shared:
                out += [*self._meet(pad), *self._one(some, pad)]
                continue
            for s in some:
                if not isinstance(s, Step):
                    out += self._meet(pad)
                out += super().block([s], pad)
        return out + self._meet(pad)

    def _meet(self, pad: str = "") -> list[str]:
        """The statement after which everyone is through with all steps, if one is needed."""
        out = [pad + WAIT] if self.open else []
        self.open = []
        return out

    def _one(self, steps: Sequence[AnyStep], pad: str) -> list[str]:
        """Steps that part 0 computes for everyone."""
        self.places += 1
        self.alone, self.left = True, False
        body = self.block(steps, pad + "  ")
        self.alone = False
        found = sorted({(self.found[s.name], s.name) for s in _found_by(steps)})
        body += [f"{pad}  c->found[{k}] = {name};" for k, name in found]
        body += [f"{pad} over{self.places}:;"] if self.left else []
        learned = [f"{pad}{name} = c->found[{k}];" for k, name in found]
        return [f"{pad}if (me.part == 0) {{", *body, f"{pad}}}", pad + WAIT, *learned]

    def call(self, s: Step) -> list[str]:
        if self.alone:
            return super().call(s)
        if any(must_meet(before, s, self.program.threads) for before in self.open):
            return [*self._meet(), *self.call(s)]
        self.open.append(s)
        number, profile, self.profile = self.number, self.profile, False
        lines = super().call(s)
        self.profile = profile
        if profile:
            first, last = (f"if (me.part == 0) ticks[{number}] {op}= of_tick();" for op in "-+")
            lines = [first, *lines, *self._meet(), last]
        return lines

    def leave(self, code: str) -> str:
        if not self.alone:
            return f"of_stop(me, {code});"
        self.left = True
        return f"{{ of_stop(me, {code}); goto over{self.places}; }}"

    def decided(self, pad: str) -> list[str]:
        return [] if self.alone else [pad + WAIT]

    def guard(self, cond: str, pad: str) -> tuple[str, list[str]]:
        if self.alone:
            return super().guard(cond, pad)
        return "", [f"{pad}const bool go = {cond};", *self.decided(pad), f"{pad}if (!go) break;"]

    def written(self, line: str, pad: str) -> list[str]:
        return [pad + line] if self.alone else [f"{pad}if (me.part == 0) {line}", pad + WAIT]

    def _if(self, s: IfStep, pad: str) -> list[str]:
        if self.alone:
            return super()._if(s, pad)
        self.places += 1
        name, inner = f"if{self.places}", pad + "  "
        out = [f"{pad}const bool {name} = *{self.pointer(s.cond, 'bool', True)};"]
        out += [*self.decided(pad), f"{pad}if ({name}) {{  // {c_comment(str(s.origin))}"]
        out += self.block(s.then, inner) + self._sizes(s.then_sizes, inner)
        out.append(f"{pad}}} else {{")
        out += self.block(s.otherwise, inner) + self._sizes(s.otherwise_sizes, inner)
        return [*out, pad + "}"]


def _is_shared(s: AnyStep) -> bool:
    """Whether a step, or one inside of it, is split."""
    return any(inner.kernel.split for inner in flat([s]))


def _found_by(steps: Sequence[AnyStep]) -> Iterator[Sym]:
    """The sizes that are known after these steps."""
    for s in steps:
        if isinstance(s, Step):
            yield from s.outs
        elif isinstance(s, IfStep):
            yield from (k for k, _ in (*s.then_sizes, *s.otherwise_sizes))
            yield from _found_by([*s.then, *s.otherwise])
        else:
            yield from (k for k, _, _ in s.sizes)
            yield from () if s.turns is None else (s.turns,)
            yield from _found_by(s.body)
