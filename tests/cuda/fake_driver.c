/* A CUDA driver that answers what FAKE_DRIVER says: version count code bytes_free. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long ask(int which) {
  long values[4] = {13000, 1, 0, 1l << 30};
  const char *text = getenv("FAKE_DRIVER");
  if (text) {
    sscanf(text, "%ld %ld %ld %ld", &values[0], &values[1], &values[2], &values[3]);
  }
  return values[which];
}

int cuInit(unsigned flags) { return (void)flags, (int)ask(2); }
int cuDriverGetVersion(int *version) { return *version = (int)ask(0), 0; }
int cuDeviceGetCount(int *count) { return *count = (int)ask(1), 0; }
int cuDeviceGet(int *device, int index) { return *device = index, 0; }
int cuDeviceGetName(char *name, int size, int device) {
  return snprintf(name, (size_t)size, "Fake %d", device), 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
  return (void)device, *context = &ask, 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return (void)device, 0; }
int cuCtxPushCurrent_v2(void *context) { return context == &ask ? 0 : 1; }
int cuCtxPopCurrent_v2(void **context) { return *context = NULL, 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
  if (ask(3) < 0) return 2;
  return *free = (size_t)ask(3), *total = 1ul << 36, 0;
}
int cuGetErrorString(int code, const char **text) {
  return *text = code == 2 ? "out of memory" : "unknown error", 0;
}
