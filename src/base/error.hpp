// Errors. Every error says what happened, where, and what to do, in one line; the program prints that
// line and exits 2 for the user's mistake and 1 for a failure of the machine or of Sinew.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace sinew {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  virtual int exit_code() const { return 1; }
};

// The user can mend it: bad input, bad flag, missing or damaged file. Exit code 2.
class UserError : public Error {
 public:
  using Error::Error;
  int exit_code() const override { return 2; }
};

// A write or read that the machine refused (full disk, permission, I/O error). Exit code 2: the user
// can mend it, and nothing that was there before is damaged.
class IoError : public UserError {
 public:
  using UserError::UserError;
};

// `fail("{}: no such tensor", name)` throws UserError.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw UserError(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void require(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) fail(format, std::forward<Args>(args)...);
}

// For invariants of the program itself; exit code 1.
template <class... Args>
void ensure(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) throw Error("internal: " + fmt::format(format, std::forward<Args>(args)...));
}

// The errno text of the last system call, e.g. "No space left on device".
std::string system_reason();

}  // namespace sinew
