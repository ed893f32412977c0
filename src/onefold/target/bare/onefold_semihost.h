/* Files, text and exit status through a debugger or an emulator (Arm semihosting).
 * Numbers and parameter blocks follow Arm's "Semihosting for AArch32 and AArch64". */
#ifndef ONEFOLD_SEMIHOST_H
#define ONEFOLD_SEMIHOST_H
#include <stddef.h>
#include <stdint.h>

static inline int onefold_semi(int operation, const void *block) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = block;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static inline void onefold_print(const char *text) { onefold_semi(0x04, text); }

/* Ends the program; the emulator's exit status is `status` (0..255). */
static inline void onefold_exit(int status) {
  const uint32_t block[2] = {0x20026, (uint32_t)status};
  onefold_semi(0x20, block);
  for (;;) {}
}

/* Opens a file for reading (write = 0) or writing (write = 1); a negative number on failure. */
static inline int onefold_open(const char *name, int write) {
  uint32_t length = 0;
  while (name[length]) length++;
  const uint32_t block[3] = {(uint32_t)name, write ? 5 : 1, length};
  return onefold_semi(0x01, block);
}

static inline void onefold_close(int file) {
  const uint32_t block[1] = {(uint32_t)file};
  onefold_semi(0x02, block);
}

/* Bytes in the file, or a negative number. */
static inline int32_t onefold_length(int file) {
  const uint32_t block[1] = {(uint32_t)file};
  return onefold_semi(0x0c, block);
}

/* Number of bytes read; less than `bytes` at the end of the file. */
static inline size_t onefold_read(int file, void *to, size_t bytes) {
  const uint32_t block[3] = {(uint32_t)file, (uint32_t)to, bytes};
  return bytes - (size_t)onefold_semi(0x06, block);
}

/* Number of bytes written. */
static inline size_t onefold_write(int file, const void *from, size_t bytes) {
  const uint32_t block[3] = {(uint32_t)file, (uint32_t)from, bytes};
  return bytes - (size_t)onefold_semi(0x05, block);
}

/* The arguments given to the emulator, separated by spaces; 0 on success. */
static inline int onefold_arguments(char *to, size_t bytes) {
  const uint32_t block[2] = {(uint32_t)to, bytes};
  return onefold_semi(0x15, block);
}

/* Most bytes of stack used since reset (see startup.c). */
size_t onefold_stack_used(void);

#endif
