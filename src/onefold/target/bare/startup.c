/* Vector table and start-up of a Cortex-M image: stack, FPU, .data, .bss, main, exit. */
#include "onefold_semihost.h"

extern uint32_t _stack[], _stack_lo[];                 /* ends of the stack */
extern uint32_t _sd[], _ed[], _ld[], _sb[], _eb[];     /* .data, where it is loaded from, .bss */
int main(void);

#define PAINT 0xC5C5C5C5u

__attribute__((naked, used)) void reset(void) {
  __asm__ volatile("ldr r0, =_stack\n mov sp, r0\n bl onefold_start\n .ltorg");
}

__attribute__((used, noreturn)) void onefold_start(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: access to FPU and MVE */
  __asm__ volatile("dsb\n isb");
#endif
  volatile uint32_t *here = (volatile uint32_t *)__builtin_frame_address(0) - 16;
  for (volatile uint32_t *p = _stack_lo; p < here; p++) *p = PAINT;
  for (volatile uint32_t *to = _sd, *from = _ld; to < _ed;) *to++ = *from++;
  for (volatile uint32_t *p = _sb; p < _eb; p++) *p = 0;
  onefold_exit(main());
  __builtin_unreachable();
}

size_t onefold_stack_used(void) {
  const volatile uint32_t *p = _stack_lo;
  while (p < _stack && *p == PAINT) p++;
  return (size_t)((const volatile char *)_stack - (const volatile char *)p);
}

#ifndef __ARM_ARCH_6M__
static void hex(const char *name, uintptr_t address) {
  char text[] = " 0x00000000";
  uint32_t value = *(volatile uint32_t *)address;
  for (int i = 10; i > 2; i--, value >>= 4) text[i] = "0123456789abcdef"[value & 15];
  onefold_print(name);
  onefold_print(text);
}
#endif

/* Exit status 99 tells the host that the CPU faulted. */
static void fault(void) {
  onefold_print("CPU fault:");
#ifndef __ARM_ARCH_6M__
  hex(" CFSR", 0xE000ED28);
  hex(" HFSR", 0xE000ED2C);
#endif
  onefold_print("\n");
  onefold_exit(99);
}

__attribute__((section(".vectors"), used)) void (*const onefold_vectors[16])(void) = {
    (void (*)(void))_stack, reset, fault, fault, fault, fault, fault, fault,
    fault, fault, fault, fault, fault, fault, fault, fault};
