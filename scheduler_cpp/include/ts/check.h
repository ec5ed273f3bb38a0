// SPDX-License-Identifier: MIT
// Internal invariants: TS_ASSERT costs nothing in release builds and stops the test builds.
#pragma once

#include <cstdio>
#include <cstdlib>

#if defined(TS_CHECKED)
#define TS_ASSERT(condition)                                                         \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: violated: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                  \
    }                                                                                \
  } while (false)
#else
#define TS_ASSERT(condition) static_cast<void>(0)
#endif
