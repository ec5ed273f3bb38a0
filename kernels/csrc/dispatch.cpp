// SPDX-License-Identifier: MIT
#include "dispatch.h"

#include <stdexcept>

namespace ts {
namespace {

std::vector<const KernelTable*> supported() {
  std::vector<const KernelTable*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) tables.push_back(&kAvx512Bf16);
  if (avx512) tables.push_back(&kAvx512);
  if (avx2) tables.push_back(&kAvx2);
#endif
  tables.push_back(&kBaseline);
  return tables;
}

const KernelTable*& selected() {
  static const KernelTable* table = supported().front();
  return table;
}

}  // namespace

const KernelTable& kernels() {
  return *selected();
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const KernelTable* table : supported()) names.emplace_back(table->name);
  return names;
}

void select_isa(const std::string& name) {
  for (const KernelTable* table : supported()) {
    if (name == table->name) {
      selected() = table;
      return;
    }
  }
  std::string known;
  for (const std::string& isa : supported_isas()) known += (known.empty() ? "" : ", ") + isa;
  throw std::invalid_argument("this CPU cannot run " + name + "; it can run " + known);
}

}  // namespace ts
