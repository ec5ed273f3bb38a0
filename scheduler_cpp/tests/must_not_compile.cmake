# SPDX-License-Identifier: MIT
# Compiles PROGRAM and succeeds if the compiler's first error is the one that the program's
# `// expected-error: <regex>` line names.
#   cmake -DCOMPILER=c++ -DINCLUDE=dir -DPROGRAM=file.cpp -P must_not_compile.cmake
file(STRINGS "${PROGRAM}" expected REGEX "^// expected-error: ")
list(LENGTH expected count)
if(NOT count EQUAL 1)
  message(FATAL_ERROR "${PROGRAM} must have one line '// expected-error: <regex>'")
endif()
string(REPLACE "// expected-error: " "" expected "${expected}")

set(ENV{LC_ALL} C)  # plain ASCII quotes in messages
execute_process(
  COMMAND "${COMPILER}" -std=c++20 -Wall -Wextra -Werror -fsyntax-only "-I${INCLUDE}" "${PROGRAM}"
  RESULT_VARIABLE status ERROR_VARIABLE messages)
if(status EQUAL 0)
  message(FATAL_ERROR "${PROGRAM} compiles, but must not")
endif()
string(REGEX MATCH "error: [^\n]*" first_error "${messages}")
if(NOT first_error MATCHES "${expected}")
  message(FATAL_ERROR "${PROGRAM} fails for another reason.\nexpected: ${expected}\nfound: ${messages}")
endif()
