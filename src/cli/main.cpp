// sinew: plans, trains, compresses, serves and evaluates sparse Mixture-of-Experts language models.
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <new>
#include <string_view>

#include <fmt/format.h>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "kernels/restart.hpp"

namespace {

int print_error(const char* what, int code) {
  fmt::print(stderr, "sinew: {}\n", what);
  return code;
}

// Those that neither train nor run a model, nor measure how fast that goes, need no better settings: to start
// anew for them would double the third of a second that it takes to load libtorch.
bool computes(int argc, char** argv) {
  using namespace std::string_view_literals;
  constexpr std::array kCommands{"train"sv,  "bench"sv,    "generate"sv, "chat"sv,  "eval"sv,
                                 "logits"sv, "quantize"sv, "plan"sv,     "doctor"sv};
  return argc > 1 && std::find(kCommands.begin(), kCommands.end(), argv[1]) != kCommands.end();
}

}  // namespace

int main(int argc, char** argv) {
  if (computes(argc, argv)) sinew::restart_with_better_settings(argv);
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
