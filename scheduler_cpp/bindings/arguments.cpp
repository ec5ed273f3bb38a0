// SPDX-License-Identifier: MIT
#include "arguments.h"

#include <cstring>

namespace ts::python {
namespace {

std::string type_of(nb::handle value) {
  return Py_TYPE(value.ptr())->tp_name;
}

[[noreturn]] void wrong_type(const char* name, const char* wanted, nb::handle value) {
  throw nb::type_error(
      (std::string(name) + " must be " + wanted + ", not " + type_of(value)).c_str());
}

nb::object index_of(nb::handle value, const char* name) {
  if (PyBool_Check(value.ptr()) || !PyIndex_Check(value.ptr())) wrong_type(name, "an int", value);
  nb::object index = nb::steal(PyNumber_Index(value.ptr()));
  if (!index.is_valid()) throw nb::python_error();
  return index;
}

[[noreturn]] void out_of_range(const char* name, nb::handle value, const std::string& range) {
  throw nb::value_error(
      (std::string(name) + " is " + nb::str(value).c_str() + "; it must be between " + range)
          .c_str());
}

bool holds_tokens(const Py_buffer& view) {
  if (view.itemsize != sizeof(Token) || view.format == nullptr) return false;
  const char* format = view.format;
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  return std::strcmp(format, "i") == 0 || std::strcmp(format, "l") == 0;
}

}  // namespace

std::int64_t integer_argument(nb::handle value, const char* name, std::int64_t low,
                              std::int64_t high) {
  const nb::object index = index_of(value, name);
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow != 0 || number < low || number > high) {
    out_of_range(name, index, std::to_string(low) + " and " + std::to_string(high));
  }
  return number;
}

std::uint64_t unsigned_argument(nb::handle value, const char* name) {
  const nb::object index = index_of(value, name);
  const unsigned long long number = PyLong_AsUnsignedLongLong(index.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    out_of_range(name, index, "0 and " + std::to_string(UINT64_MAX));
  }
  return number;
}

double real_argument(nb::handle value, const char* name) {
  if (!PyFloat_Check(value.ptr())) return static_cast<double>(integer_argument(value, name));
  return PyFloat_AS_DOUBLE(value.ptr());
}

bool bool_argument(nb::handle value, const char* name) {
  if (!PyBool_Check(value.ptr())) wrong_type(name, "a bool", value);
  return value.ptr() == Py_True;
}

std::vector<Token> token_set_argument(nb::handle value, const char* name) {
  if (PyUnicode_Check(value.ptr()) || PyBytes_Check(value.ptr())) {
    wrong_type(name, "an iterable of token ids", value);
  }
  const nb::object iterator = nb::steal(PyObject_GetIter(value.ptr()));
  if (!iterator.is_valid()) {
    PyErr_Clear();
    wrong_type(name, "an iterable of token ids", value);
  }
  std::vector<Token> tokens;
  while (PyObject* item = PyIter_Next(iterator.ptr())) {
    const nb::object token = nb::steal(item);
    tokens.push_back(static_cast<Token>(integer_argument(token, name, INT32_MIN, INT32_MAX)));
  }
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  return tokens;
}

BufferArgument::BufferArgument(nb::handle value, const char* name, bool tokens) {
  const char* wanted =
      tokens ? "a one-dimensional C-contiguous int32 buffer" : "a bytes-like object";
  const int flags = tokens ? PyBUF_C_CONTIGUOUS | PyBUF_FORMAT : PyBUF_SIMPLE;
  if (PyObject_GetBuffer(value.ptr(), &view_, flags) != 0) {
    PyErr_Clear();
    wrong_type(name, wanted, value);
  }
  if (tokens && (view_.ndim != 1 || !holds_tokens(view_))) {
    PyBuffer_Release(&view_);
    wrong_type(name, wanted, value);
  }
}

}  // namespace ts::python
