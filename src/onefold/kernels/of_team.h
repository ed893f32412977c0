// Threads that run one program together. Every thread runs all of the program's steps: its share of those that are
// split, and the others if it is part 0; of_wait stands between what one thread writes and another reads.
//
// The threads are the caller's own. A further thread calls of_work(team, part), part = 1, 2, ..., and helps whoever
// calls of_run until of_end is called. A call uses the threads that are there, and none if another call uses them.
// Waiting spins for some microseconds, which is how long most waits take, and then sleeps in the kernel (Linux), so
// that threads without work cost nothing. A team is zeroed memory, and serves any number of programs.
//
// A helper whose CPU computes for somebody else keeps all others waiting, at every meeting, for as long as the
// scheduler gives to each in turn. So the time that callers wait is counted; where in some calls it was more than
// helpers can gain, the next calls do without them for as long as those took, and for longer and longer, up to 16
// times, where it is the same again.
#pragma once
#include "of_program.h"
#include "of_tick.h"

enum { OF_TEAM_MAX = 256, OF_SPIN = 4000, OF_JUDGED = 4, OF_RESTS = 4 };

// Those who run one call: where they meet, and the error that stops all of them.
struct of_crew {
  int32_t stopped, result;  // result: what `stopped` was when they last met
  uint64_t waited;  // by part 0, in units of of_tick
  _Alignas(64) uint32_t arrived;
  _Alignas(64) uint32_t turn;
  uint32_t sleepers;
};

struct of_part {
  ix part, parts;
  struct of_crew *crew;
};

typedef int32_t of_job(void *call, struct of_part me);

struct of_seat {
  _Alignas(64) uint32_t calls;
  uint32_t sleepers, here;
};

struct of_team {
  uint32_t busy, ended;
  ix parts;
  of_job *job;
  void *call;
  uint64_t took, rest;  // time of the calls with helpers since they were judged; time to come without them
  uint32_t calls, rests;  // calls since they were judged; how often in a row helpers did not pay
  struct of_crew crew;
  struct of_seat seat[OF_TEAM_MAX];
};

// -- shares ----------------------------------------------------------------------------------------------------------

// The share of a part of n elements, cut at multiples of `step`: [of_from, of_to)
AI ix of_cut(ix n, ix step, ix part, ix parts) {
  const ix at = (n + step - 1) / step * part / parts * step;
  return at < n ? at : n;
}
AI ix of_from(struct of_part me, ix n, ix step) { return of_cut(n, step, me.part, me.parts); }
AI ix of_to(struct of_part me, ix n, ix step) { return of_cut(n, step, me.part + 1, me.parts); }

// Of n tiles at first, first + width, ...: how many begin before `end`
AI ix of_tiles(ix end, ix first, ix width, ix n) {
  return end <= first ? 0 : of_min_ix((end - first + width - 1) / width, n);
}

// -- waiting ---------------------------------------------------------------------------------------------------------

AI void of_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");  // yield is nothing on most cores
#elif defined(__riscv)
  __asm__ volatile(".insn i 0x0f, 0, x0, x0, 0x010" ::: "memory");  // pause
#endif
}

// futex(word, op | private, value, no timeout)
AI void of_futex(uint32_t *word, int op, uint32_t value) {
  enum { PRIVATE = 128 };
#if defined(__x86_64__)
  long rax = 202;
  register long r10 __asm__("r10") = 0;
  __asm__ volatile("syscall" : "+a"(rax) : "D"(word), "S"((long)(op | PRIVATE)), "d"((long)value), "r"(r10)
                   : "rcx", "r11", "memory");
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = 98, x0 __asm__("x0") = (long)word, x1 __asm__("x1") = op | PRIVATE;
  register long x2 __asm__("x2") = value, x3 __asm__("x3") = 0;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
#elif defined(__riscv) && __riscv_xlen == 64
  register long a7 __asm__("a7") = 98, a0 __asm__("a0") = (long)word, a1 __asm__("a1") = op | PRIVATE;
  register long a2 __asm__("a2") = value, a3 __asm__("a3") = 0;
  __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3) : "memory");
#else
#error "no threads for this architecture"
#endif
}

OF_COLD void of_sleep(uint32_t *word, uint32_t old, uint32_t *sleepers) {
  enum { WAIT = 0 };
  __atomic_fetch_add(sleepers, 1, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == old) of_futex(word, WAIT, old);
  __atomic_fetch_sub(sleepers, 1, __ATOMIC_SEQ_CST);
}

// Until *word is no longer `old`
AI void of_wait_while(uint32_t *word, uint32_t old, uint32_t *sleepers) {
  for (int i = 0; i < OF_SPIN; i++) {
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != old) return;
    of_pause();
  }
  of_sleep(word, old, sleepers);
}

AI void of_advance(uint32_t *word, uint32_t *sleepers) {
  enum { WAKE = 1 };
  __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(sleepers, __ATOMIC_SEQ_CST)) of_futex(word, WAKE, INT32_MAX);
}

// Makes everyone return `code` from where they meet next.
AI void of_stop(struct of_part me, int32_t code) { __atomic_store_n(&me.crew->stopped, code, __ATOMIC_RELAXED); }

// Everyone comes before anyone goes on. Returns the code that a part has stopped with, or 0: the same to everyone,
// since it is read by the last to come.
OF_COLD int32_t of_meet(struct of_part me) {
  struct of_crew *const c = me.crew;
  const uint32_t turn = __atomic_load_n(&c->turn, __ATOMIC_RELAXED);
  if (__atomic_fetch_add(&c->arrived, 1, __ATOMIC_ACQ_REL) + 1 == (uint32_t)me.parts) {
    c->result = __atomic_load_n(&c->stopped, __ATOMIC_RELAXED);
    __atomic_store_n(&c->arrived, 0, __ATOMIC_RELAXED);
    of_advance(&c->turn, &c->sleepers);
  } else {
    const uint64_t begin = of_tick();
    of_wait_while(&c->turn, turn, &c->sleepers);
    if (me.part == 0) c->waited += of_tick() - begin;
  }
  return c->result;
}
AI int32_t of_wait(struct of_part me) { return me.parts == 1 ? me.crew->stopped : of_meet(me); }

// -- teams -----------------------------------------------------------------------------------------------------------

AI void of_work(struct of_team *t, ix part) {
  if (part < 1 || part >= OF_TEAM_MAX) return;
  struct of_seat *const s = &t->seat[part];
  uint32_t calls = __atomic_load_n(&s->calls, __ATOMIC_RELAXED);
  if (__atomic_exchange_n(&s->here, 1, __ATOMIC_SEQ_CST)) return;  // the seat is taken
  while (!__atomic_load_n(&t->ended, __ATOMIC_SEQ_CST)) {
    of_wait_while(&s->calls, calls++, &s->sleepers);
    if (__atomic_load_n(&t->ended, __ATOMIC_SEQ_CST)) break;
    const struct of_part me = {part, t->parts, &t->crew};
    t->job(t->call, me);
    of_meet(me);
  }
  __atomic_store_n(&s->here, 0, __ATOMIC_RELEASE);
}

// How many of the first `most` helpers are there
AI int32_t of_helpers(struct of_team *t, ix most) {
  int32_t n = 0;
  while (n < most && n + 1 < OF_TEAM_MAX && __atomic_load_n(&t->seat[n + 1].here, __ATOMIC_ACQUIRE)) n++;
  return n;
}

AI void of_end(struct of_team *t) {
  while (__atomic_exchange_n(&t->busy, 1, __ATOMIC_ACQUIRE)) of_pause();
  __atomic_store_n(&t->ended, 1, __ATOMIC_SEQ_CST);
  for (ix k = 1; k < OF_TEAM_MAX; k++) of_advance(&t->seat[k].calls, &t->seat[k].sleepers);
}

AI int32_t of_run_alone(of_job *job, void *call) {
  struct of_crew alone = {0};
  const int32_t code = job(call, (struct of_part){0, 1, &alone});
  return code ? code : alone.stopped;
}

AI int32_t of_run_together(struct of_team *t, ix parts, of_job *job, void *call) {
  const struct of_part me = {0, parts, &t->crew};
  t->job = job, t->call = call, t->parts = parts;
  t->crew.stopped = 0;
  for (ix k = 1; k < parts; k++) of_advance(&t->seat[k].calls, &t->seat[k].sleepers);
  const int32_t code = job(call, me);
  const int32_t stopped = of_meet(me);
  return code ? code : stopped;
}

// Whether helpers pay, by the calls since the last time. Sharing work among n brings at most (n - 1) / n of what the
// caller would be busy with; what it waits for costs more than that, since in between it waits for a CPU itself.
AI void of_judge(struct of_team *t, ix parts, uint64_t took) {
  t->took += took;
  if (++t->calls < OF_JUDGED) return;
  if (t->crew.waited > t->took / (4 * (uint64_t)parts) * (3 * (uint64_t)(parts - 1))) {
    t->rest = t->rests ? t->took << t->rests : 0;  // once may be chance
    t->rests += t->rests < OF_RESTS;
  } else {
    t->rests = 0;
  }
  t->calls = 0, t->took = t->crew.waited = 0;
}

// Runs the job on the calling thread, which is part 0, and on those of the team, at most `most` in all.
AI int32_t of_run(struct of_team *t, ix most, of_job *job, void *call) {
  if (!t || __atomic_exchange_n(&t->busy, 1, __ATOMIC_ACQUIRE)) return of_run_alone(job, call);
  const ix parts = t->rest ? 1 : 1 + of_helpers(t, most - 1);
  const uint64_t begin = of_tick();
  const int32_t code = parts > 1 ? of_run_together(t, parts, job, call) : of_run_alone(job, call);
  const uint64_t took = of_tick() - begin;
  if (parts > 1) of_judge(t, parts, took);
  else t->rest -= took < t->rest ? took : t->rest;
  __atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
  return code;
}
