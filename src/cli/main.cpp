// sinew: plans, trains, compresses, serves and evaluates sparse Mixture-of-Experts language models.
#include <cstdio>
#include <exception>
#include <new>

#include <fmt/format.h>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "kernels/restart.hpp"

namespace {

int print_error(const char* what, int code) {
  fmt::print(stderr, "sinew: {}\n", what);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  sinew::restart_with_better_settings(argv);
  try {
    return sinew::cli::run_command_line(argc, argv, sinew::cli::add_commands);
  } catch (const sinew::Error& error) {
    return print_error(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return print_error("out of memory", 1);
  } catch (const std::exception& error) {
    return print_error(error.what(), 1);
  }
}
