/* Hides instruction sets from a process and from all that it starts: `make test-as`.

   Preloaded, with DIN_MASK_CPU = avx512 (hides AMX), avx2 (AVX-512 too) or baseline
   (AVX2 and FMA too). Linux makes `cpuid` fault where a thread asks for it (ARCH_SET_CPUID,
   on Intel since Ivy Bridge), and the handler answers it with those features left out.
   Threads and forks inherit the fault; exec clears it, and starts this library again. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

typedef int sigaction_fn(int, const struct sigaction *, struct sigaction *);
static sigaction_fn *real_sigaction;
/* of whoever else wants SIGSEGV: gets what is not cpuid's */
static struct sigaction theirs;
static int hides_avx512, hides_avx2;

#define BIT(n) (1u << (n))
static void hide(unsigned leaf, unsigned sub, unsigned x[4]) {
  unsigned *a = &x[0], *b = &x[1], *c = &x[2], *d = &x[3];
  if (leaf == 1 && hides_avx2) *c &= ~(BIT(12) | BIT(29)); /* FMA F16C */
  if (leaf == 7 && sub == 0) {
    *d &= ~(BIT(22) | BIT(24) | BIT(25)); /* AMX: BF16 TILE INT8 */
    if (hides_avx512) {
      *b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31)); /* F .. VL */
      *c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14)); /* VBMI .. VPOPCNTDQ */
      *d &= ~(BIT(8) | BIT(23));                              /* VP2INTERSECT FP16 */
    }
    if (hides_avx2) {
      *b &= ~(BIT(3) | BIT(5) | BIT(8)); /* BMI1 AVX2 BMI2 */
      *c &= ~(BIT(9) | BIT(10));         /* VAES VPCLMULQDQ */
    }
  }
  if (leaf == 7 && sub == 1) {
    *a &= ~BIT(21);                  /* AMX: FP16 */
    if (hides_avx512) *a &= ~BIT(5); /* AVX512-BF16 */
    if (hides_avx2)
      *a &= ~(BIT(4) | BIT(23)), *d &= ~(BIT(4) | BIT(5)); /* AVX-VNNI .. */
  }
}

static long set_fault(int on) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on); }

static void handle(int number, siginfo_t *info, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *code = (const unsigned char *)r[REG_RIP];
  if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2) {
    unsigned x[4], leaf = (unsigned)r[REG_RAX], sub = (unsigned)r[REG_RCX];
    set_fault(0);
    __cpuid_count(leaf, sub, x[0], x[1], x[2], x[3]);
    set_fault(1);
    hide(leaf, sub, x);
    r[REG_RAX] = x[0], r[REG_RBX] = x[1], r[REG_RCX] = x[2], r[REG_RDX] = x[3];
    r[REG_RIP] += 2;
  } else if (theirs.sa_flags & SA_SIGINFO) {
    theirs.sa_sigaction(number, info, context);
  } else if (theirs.sa_handler != SIG_DFL && theirs.sa_handler != SIG_IGN) {
    theirs.sa_handler(number);
  } else {
    real_sigaction(SIGSEGV, &theirs, NULL); /* it happens again, and ends the process */
  }
}

static int find_real(void) {
  real_sigaction = (sigaction_fn *)dlsym(RTLD_NEXT, "sigaction");
  return real_sigaction != NULL;
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
  if (real_sigaction == NULL && !find_real()) abort();
  if (number != SIGSEGV) return real_sigaction(number, new, old);
  struct sigaction before = theirs;
  if (new) theirs = *new;
  if (old) *old = before;
  return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
  struct sigaction new = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
  sigemptyset(&new.sa_mask);
  return sigaction(number, &new, &old) == 0 ? old.sa_handler : SIG_ERR;
}

__attribute__((constructor)) static void start(void) {
  const char *best = getenv("DIN_MASK_CPU");
  hides_avx2 = best && strcmp(best, "baseline") == 0;
  hides_avx512 = hides_avx2 || (best && strcmp(best, "avx2") == 0);
  if (!hides_avx512 && !(best && strcmp(best, "avx512") == 0)) {
    fputs("DIN_MASK_CPU: expected avx512, avx2 or baseline\n", stderr);
    _exit(1);
  }
  struct sigaction mine = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigemptyset(&mine.sa_mask);
  if (!find_real() || real_sigaction(SIGSEGV, &mine, NULL) != 0 || set_fault(1) != 0) {
    fprintf(stderr, "DIN_MASK_CPU: cpuid cannot be made to fault here: %s\n",
            strerror(errno));
    _exit(1);
  }
}
