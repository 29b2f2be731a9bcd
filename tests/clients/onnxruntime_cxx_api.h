/* As much of ONNX Runtime's C++ interface as examples/clients/cpp calls, for tests: the
   wheel of the runtime brings no header. Names, arguments and places in OrtApi are those
   of onnxruntime_cxx_api.h and onnxruntime_c_api.h (compared with 1.21), which a client
   includes in its stead. */
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

struct OrtApiBase;
extern "C" const OrtApiBase *OrtGetApiBase();
struct OrtApiBase {
  void *const *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)();
};
enum OrtAllocatorType { OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };

namespace Ort {
using Handle = void *;

inline Handle place(int number) { return OrtGetApiBase()->GetApi(20)[number]; }

template <typename... Arguments>
void call(int number, Arguments... arguments) {
  auto function = reinterpret_cast<Handle (*)(Arguments...)>(place(number));
  if (Handle status = function(arguments...)) {
    auto message = reinterpret_cast<const char *(*)(Handle)>(place(2));  // GetErrorMessage
    throw std::runtime_error(message(status));
  }
}

/* A handle, and the place of the function that releases it. */
template <int release>
struct Owned {
  Handle handle = nullptr;
  Owned() = default;
  explicit Owned(std::nullptr_t) {}
  Owned(Owned &&other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
  ~Owned() {
    if (handle) reinterpret_cast<void (*)(Handle)>(place(release))(handle);
  }
};

struct Env : Owned<92> {
  Env() { call(3, 2, "client", &handle); }  // CreateEnv, warnings
};
struct SessionOptions : Owned<100> {
  SessionOptions() { call(10, &handle); }
  void RegisterCustomOpsLibrary(const char *path) {
    Handle library;
    call(29, handle, path, &library);
  }
};
struct RunOptions : Owned<97> {
  using Owned::Owned;
};
struct MemoryInfo : Owned<94> {
  static MemoryInfo CreateCpu(OrtAllocatorType allocator, OrtMemType kind) {
    MemoryInfo made;
    call(69, static_cast<int>(allocator), static_cast<int>(kind), &made.handle);
    return made;
  }
};
template <typename T>
constexpr int TYPE = sizeof(T) == 4 ? 1 : 7; /* float, int64 */

struct Value : Owned<96> {
  template <typename T>
  static Value CreateTensor(const MemoryInfo &memory, T *data, size_t count,
                            const int64_t *shape, size_t rank) {
    Value made;
    call(49, memory.handle, static_cast<void *>(data), count * sizeof(T), shape, rank, TYPE<T>,
         &made.handle);
    return made;
  }
  template <typename T>
  const T *GetTensorData() const {
    T *data;
    call(51, handle, &data);
    return data;
  }
};
struct Session : Owned<95> {
  Session(const Env &env, const char *path, const SessionOptions &options) {
    call(7, env.handle, path, options.handle, &handle);
  }
  std::vector<Value> Run(const RunOptions &options, const char *const *names,
                         const Value *values, size_t count, const char *const *outputs,
                         size_t num_outputs) {
    std::vector<Handle> given(count), made(num_outputs);
    for (size_t i = 0; i < count; ++i) given[i] = values[i].handle;
    call(9, handle, options.handle, names, given.data(), count, outputs, num_outputs,
         made.data());
    std::vector<Value> out(num_outputs);
    for (size_t i = 0; i < num_outputs; ++i) out[i].handle = made[i];
    return out;
  }
};
}  // namespace Ort
