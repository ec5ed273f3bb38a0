// SPDX-License-Identifier: MIT
//
// What Python sees of the software GPU's CUDA runtime (ts_gpusim/capture/runtime.py mirrors it).
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// cudaLaunchAttribute of cuda_runtime_api.h: the value is a union of 64 bytes.
struct TsLaunchAttribute {
  std::uint32_t id;
  std::uint32_t padding;
  unsigned char value[64];
};

// cudaLaunchConfig_t.
struct TsLaunchConfig {
  std::uint32_t grid[3];
  std::uint32_t block[3];
  std::size_t shared_bytes;
  void* stream;
  const TsLaunchAttribute* attributes;
  std::uint32_t attribute_count;
};

// Executes the launch; `arguments[i]` points at the bytes of the kernel's parameter i. Never fails:
// the host function has no way to say why, so Python keeps its exception for later.
using TsLaunch = void (*)(const char* kernel, const TsLaunchConfig* config, void** arguments);

// Tells Python, in one sentence, why the call that is about to return an error does so.
using TsProblem = void (*)(const char* sentence);

// Null callbacks: no device, every launch is refused.
void ts_gpusim_connect(TsLaunch launch, TsProblem problem);

// The answer to _cudaDeviceGetAttribute; an attribute without a value is an error to ask for.
void ts_gpusim_set_attribute(std::int32_t attribute, std::int32_t value);
}
