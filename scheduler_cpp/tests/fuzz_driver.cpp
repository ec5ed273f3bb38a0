// SPDX-License-Identifier: MIT
// Drives a fuzz target without libFuzzer, which only clang has.
//
//   fuzz_scheduler [<first seed> [<inputs>]]   seeded random inputs
//   fuzz_scheduler <file or folder>...         these inputs
//
// When the target aborts, the seed or file that made it do so is the last line.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "failing_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Input = std::vector<std::uint8_t>;

void run(const std::string& name, const Input& input) {
  spec::begin_input(name);
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

Input seeded(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Input input(random() % 1500);
  std::ranges::generate(input, [&random] { return static_cast<std::uint8_t>(random()); });
  return input;
}

void replay(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    for (const auto& entry : std::filesystem::directory_iterator(path)) replay(entry.path());
    return;
  }
  std::ifstream file(path, std::ios::binary);
  run(path.string(), Input(std::istreambuf_iterator<char>(file), {}));
}

bool is_number(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && !is_number(arguments[0])) {
    for (const std::string& path : arguments) replay(path);
    return 0;
  }
  const std::uint64_t first = arguments.empty() ? 1 : std::stoull(arguments[0]);
  const std::uint64_t inputs = arguments.size() < 2 ? 1000 : std::stoull(arguments[1]);
  for (std::uint64_t seed = first; seed < first + inputs; ++seed) {
    run("seed " + std::to_string(seed), seeded(seed));
  }
}
