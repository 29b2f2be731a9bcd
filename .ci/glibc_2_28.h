/* Takes from glibc the functions whose newer versions would keep a wheel built on a
   newer system from systems with glibc 2.28; given to gcc by .ci/wheels.py. */
#if defined(__x86_64__)
#define OLDEST(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5")
#elif defined(__aarch64__)
#define OLDEST(name) __asm__(".symver " #name "," #name "@GLIBC_2.17")
#endif
OLDEST(exp);
OLDEST(log);
OLDEST(pow);
