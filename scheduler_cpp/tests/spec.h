// SPDX-License-Identifier: MIT
// Tests as sentences: `SPEC("what holds") { EXPECT(...); }`, one executable per file.
#pragma once

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace spec {

struct Test {
  const char* sentence;
  void (*body)();
};

inline std::vector<Test> tests;
inline int failures = 0;
inline std::vector<std::string> arguments;  // of the command line

struct Register {
  Register(const char* sentence, void (*body)()) { tests.push_back({sentence, body}); }
};

inline void fail(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  ++failures;
}

// The message of the exception of type E that `call` throws; empty if it throws none.
template <class E, class Call>
std::string thrown(Call call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  return {};
}

}  // namespace spec

#define SPEC_JOIN_(a, b) a##b
#define SPEC_JOIN(a, b) SPEC_JOIN_(a, b)
#define SPEC(sentence)                                                                         \
  static void SPEC_JOIN(spec_body_, __LINE__)();                                               \
  static const spec::Register SPEC_JOIN(spec_at_, __LINE__)(sentence,                          \
                                                            &SPEC_JOIN(spec_body_, __LINE__)); \
  static void SPEC_JOIN(spec_body_, __LINE__)()

#define EXPECT(...)                                                               \
  do {                                                                            \
    if (!(__VA_ARGS__)) spec::fail(__FILE__, __LINE__, "expected " #__VA_ARGS__); \
  } while (false)

// The call throws E with a message that contains `text`.
#define EXPECT_THROWS(E, text, ...)                                                           \
  do {                                                                                        \
    const std::string message = spec::thrown<E>([&] { (void)(__VA_ARGS__); });                \
    if (message.empty() || message.find(text) == std::string::npos) {                         \
      spec::fail(                                                                             \
          __FILE__, __LINE__,                                                                 \
          std::string("expected an error with \"") + (text) + "\", got \"" + message + "\""); \
    }                                                                                         \
  } while (false)

int main(int argc, char** argv) {
  spec::arguments.assign(argv + 1, argv + argc);
  for (const spec::Test& test : spec::tests) {
    const int before = spec::failures;
    try {
      test.body();
    } catch (const std::exception& error) {
      spec::fail(test.sentence, 0, std::string("threw: ") + error.what());
    }
    std::printf("%s %s\n", spec::failures == before ? "ok  " : "FAIL", test.sentence);
  }
  return spec::failures == 0 ? 0 : 1;
}
