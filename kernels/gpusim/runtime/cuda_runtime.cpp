// SPDX-License-Identifier: MIT
//
// The CUDA runtime of the software GPU: what CuTe DSL's generated host code links against instead
// of libcute_dsl_runtime.so (CUTE_DSL_LIBS). Kernels are known by their name only; a launch goes to
// Python, which has the PTX. The signatures are those of the DSL's CuteDSLRuntime.h and of the
// calls that its MLIR lowering emits (version 4.8.1).

#include "cuda_runtime.h"

#include <cstdio>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

using Error = std::int32_t;  // cudaError_t
constexpr Error kSuccess = 0;
constexpr Error kInvalidValue = 1;
constexpr Error kNoDevice = 100;
constexpr Error kNotSupported = 801;

struct Library {};

struct Kernel {
  std::string name;
};

struct State {
  TsLaunch launch = nullptr;
  TsProblem problem = nullptr;
  std::unordered_map<std::int32_t, std::int32_t> attributes;
};

State& state() {
  static State value;
  return value;
}

Error refuse(Error error, const std::string& sentence) {
  if (state().problem != nullptr) state().problem(sentence.c_str());
  return error;
}

Error unsupported(const char* function) {
  return refuse(kNotSupported, std::string("the kernel's host code calls ") + (function + 1) +
                                   ", which the software GPU's CUDA runtime does not have");
}

const char* error_name(Error error) {
  switch (error) {
    case kSuccess:
      return "cudaSuccess";
    case kInvalidValue:
      return "cudaErrorInvalidValue";
    case kNoDevice:
      return "cudaErrorNoDevice";
    case kNotSupported:
      return "cudaErrorNotSupported";
    default:
      return "unknown error";
  }
}

}  // namespace

extern "C" {

void ts_gpusim_connect(TsLaunch launch, TsProblem problem) {
  state().launch = launch;
  state().problem = problem;
}

void ts_gpusim_set_attribute(std::int32_t attribute, std::int32_t value) {
  state().attributes[attribute] = value;
}

// NOLINTBEGIN(bugprone-reserved-identifier): these names are the DSL's.

Error _cudaLibraryLoadData(void** library, const void*, void*, void*, std::uint32_t, void*, void*,
                           std::uint32_t) {
  *library = new Library;  // its kernels outlive it in the host code: never freed
  return kSuccess;
}

Error _cudaLibraryUnload(void*) {
  return kSuccess;
}

Error _cudaLibraryGetKernel(void** kernel, void*, const char* name) {
  *kernel = new Kernel{name};
  return kSuccess;
}

// The host code computes from these how much dynamic shared memory it may opt in to. The module
// that knows the kernel's own variables is in Python, which checks their sum at each launch.
Error _cuKernelGetAttribute(std::int32_t* value, std::int32_t attribute, void*, std::int32_t) {
  constexpr std::int32_t kMaxThreadsPerBlock = 0;
  constexpr std::int32_t kStaticSharedBytes = 1;
  switch (attribute) {
    case kMaxThreadsPerBlock:
      *value = 1024;
      return kSuccess;
    case kStaticSharedBytes:
      *value = 0;
      return kSuccess;
    default:
      return refuse(kNotSupported, "the kernel's host code asks for attribute " +
                                       std::to_string(attribute) +
                                       " of a kernel, which the software GPU does not know");
  }
}

Error _cudaFuncSetAttribute(void*, std::int32_t, std::int32_t) {
  return kSuccess;
}

Error _cudaKernelSetAttributeForDevice(void*, std::int32_t, std::int32_t, std::int32_t) {
  return kSuccess;
}

Error _cudaDeviceGetAttribute(std::int32_t* value, std::int32_t attribute, std::int32_t) {
  const auto found = state().attributes.find(attribute);
  if (found == state().attributes.end()) {
    return refuse(kNotSupported, "the kernel's host code asks for device attribute " +
                                     std::to_string(attribute) +
                                     ", which the software GPU does not know");
  }
  *value = found->second;
  return kSuccess;
}

Error _cudaGetDevice(std::int32_t* device) {
  *device = 0;
  return kSuccess;
}

Error _cudaGetDeviceCount(std::int32_t* count) {
  *count = 1;
  return kSuccess;
}

Error _cudaSetDevice(std::int32_t device) {
  return device == 0 ? kSuccess
                     : refuse(kInvalidValue, "the kernel's host code selects device " +
                                                 std::to_string(device) +
                                                 ", but there is one software GPU, device 0");
}

// Launches are executed at once: nothing is ever in flight.
Error _cudaDeviceSynchronize() {
  return kSuccess;
}
Error _cudaStreamSynchronize(void*) {
  return kSuccess;
}

Error _cudaLaunchKernelEx(const TsLaunchConfig* config, const void* kernel, void** arguments) {
  if (state().launch == nullptr) return kNoDevice;
  state().launch(static_cast<const Kernel*>(kernel)->name.c_str(), config, arguments);
  return kSuccess;
}

// Every other function that libcute_dsl_runtime.so exports, so that host code links and the one
// that calls such a function learns its name.
#define TS_UNSUPPORTED(function)   \
  Error function() {               \
    return unsupported(#function); \
  }
TS_UNSUPPORTED(_cuDeviceGet)
TS_UNSUPPORTED(_cuLibraryGetGlobal)
TS_UNSUPPORTED(_cuLibraryGetKernel)
TS_UNSUPPORTED(_cuLibraryGetKernelCount)
TS_UNSUPPORTED(_cuLibraryGetManaged)
TS_UNSUPPORTED(_cuLibraryGetModule)
TS_UNSUPPORTED(_cuLibraryGetUnifiedFunction)
TS_UNSUPPORTED(_cuLibraryLoadData)
TS_UNSUPPORTED(_cuLibraryLoadFromFile)
TS_UNSUPPORTED(_cuLibraryUnload)
TS_UNSUPPORTED(_cuTensorMapEncodeTiled)
TS_UNSUPPORTED(_cudaEventCreate)
TS_UNSUPPORTED(_cudaEventDestroy)
TS_UNSUPPORTED(_cudaEventElapsedTime)
TS_UNSUPPORTED(_cudaEventRecord)
TS_UNSUPPORTED(_cudaFree)
TS_UNSUPPORTED(_cudaFreeAsync)
TS_UNSUPPORTED(_cudaFreeHost)
TS_UNSUPPORTED(_cudaGetDeviceProperties)
TS_UNSUPPORTED(_cudaGraphDestroy)
TS_UNSUPPORTED(_cudaGraphExecDestroy)
TS_UNSUPPORTED(_cudaGraphInstantiate)
TS_UNSUPPORTED(_cudaGraphLaunch)
TS_UNSUPPORTED(_cudaLaunchKernel)
TS_UNSUPPORTED(_cudaLibraryGetGlobal)
TS_UNSUPPORTED(_cudaLibraryGetKernelCount)
TS_UNSUPPORTED(_cudaLibraryGetManaged)
TS_UNSUPPORTED(_cudaLibraryGetUnifiedFunction)
TS_UNSUPPORTED(_cudaLibraryLoadFromFile)
TS_UNSUPPORTED(_cudaMalloc)
TS_UNSUPPORTED(_cudaMallocAsync)
TS_UNSUPPORTED(_cudaMallocHost)
TS_UNSUPPORTED(_cudaMallocManaged)
TS_UNSUPPORTED(_cudaMemcpy)
TS_UNSUPPORTED(_cudaMemcpyAsync)
TS_UNSUPPORTED(_cudaMemset)
TS_UNSUPPORTED(_cudaMemsetAsync)
TS_UNSUPPORTED(_cudaOccupancyMaxActiveBlocksPerMultiprocessor)
TS_UNSUPPORTED(_cudaProfilerStart)
TS_UNSUPPORTED(_cudaProfilerStop)
TS_UNSUPPORTED(_cudaStreamAddCallback)
TS_UNSUPPORTED(_cudaStreamBeginCapture)
TS_UNSUPPORTED(_cudaStreamCreate)
TS_UNSUPPORTED(_cudaStreamDestroy)
TS_UNSUPPORTED(_cudaStreamEndCapture)
TS_UNSUPPORTED(_cudaStreamWaitEvent)
#undef TS_UNSUPPORTED

// NOLINTEND(bugprone-reserved-identifier)

// tvm-ffi host code loads its library at the first call and keeps it in `*slot`.
Error cuda_dialect_init_library_once(void** slot, Error (*init)(void**),
                                     Error (*load_to_device)(void**, std::int32_t),
                                     void (*set_error)(const char* kind, const char* message)) {
  if (*slot != nullptr) return kSuccess;
  void* library = nullptr;
  Error error = init(&library);
  if (error == kSuccess && load_to_device != nullptr) error = load_to_device(&library, 0);
  if (error == kSuccess) {
    *slot = library;
  } else if (set_error != nullptr) {
    set_error("CUDADialectError", ("CUDA Error Code: " + std::to_string(error)).c_str());
  }
  return error;
}

void cuda_dialect_unload_library_once(void**) {}

const char* cuda_dialect_get_error_name(Error error) {
  return error_name(error);
}

void cuda_dialect_print_on_error(Error error) {
  if (error != kSuccess) std::fprintf(stderr, "software GPU: %s\n", error_name(error));
}

void cuda_dialect_assert_success(Error error) {
  cuda_dialect_print_on_error(error);
}

const char* CuteDSLRT_GetErrorName(Error error) {
  return error_name(error);
}
const char* CuteDSLRT_GetErrorString(Error error) {
  return error_name(error);
}

using SetErrorFromParts = void (*)(const char* kind, const char** parts, std::int32_t count);

void CuteDSLRT_TVMFFISetRaisedCudaError(SetErrorFromParts set_error, Error error) {
  const std::string code = std::to_string(error);
  std::vector<const char*> parts{"CUDA Error Code: ", code.c_str()};
  set_error("CUDADialectError", parts.data(), static_cast<std::int32_t>(parts.size()));
}

// The DSL's own check before a launch, with --debug. NOLINTNEXTLINE(readability-function-size)
void CuteDSLRT_TVMFFISetRaisedCudaLaunchError(
    SetErrorFromParts set_error, std::int32_t grid_x, std::int32_t grid_y, std::int32_t grid_z,
    std::int32_t block_x, std::int32_t block_y, std::int32_t block_z, std::int32_t,
    std::int64_t dynamic_shared_bytes, std::int32_t, std::int32_t, std::int32_t, std::int32_t,
    std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t,
    const char* violation, const char* file, std::int32_t line, std::int32_t, std::int32_t) {
  char sentence[1024];
  std::snprintf(sentence, sizeof sentence,
                "the launch at %s:%d with grid (%d, %d, %d), block (%d, %d, %d) and %lld bytes of "
                "dynamic shared memory is refused: %s",
                file, line, grid_x, grid_y, grid_z, block_x, block_y, block_z,
                static_cast<long long>(dynamic_shared_bytes), violation);
  CuteDSLRT_TVMFFISetRaisedCudaError(set_error, refuse(kInvalidValue, sentence));
}
}
