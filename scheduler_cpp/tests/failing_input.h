// SPDX-License-Identifier: MIT
// Whatever ends a test process (a sanitizer, an abort, a hang), its last line names the input that
// did it.
#pragma once

#include <unistd.h>

#include <csignal>
#include <string>

// The sanitizers abort too, so that one handler sees them all.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "abort_on_error=1";
}
extern "C" const char* __ubsan_default_options();
extern "C" const char* __ubsan_default_options() {
  return "abort_on_error=1";
}

namespace spec {

constexpr unsigned kSecondsToHang = 60;  // an input takes milliseconds

inline std::string current_input;

inline void name_current_input(int signal) {
  [[maybe_unused]] const auto written =
      ::write(STDERR_FILENO, current_input.data(), current_input.size());
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

inline void begin_input(const std::string& name) {
  current_input = "failed on " + name + "\n";
  std::signal(SIGABRT, name_current_input);
  std::signal(SIGALRM, name_current_input);
  ::alarm(kSecondsToHang);
}

}  // namespace spec
