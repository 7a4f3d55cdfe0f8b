// sinew: plans, trains, compresses, serves and evaluates sparse Mixture-of-Experts language models.
#include <cstdio>
#include <exception>
#include <new>

#include <fmt/format.h>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "kernels/blas_core.hpp"

namespace {

int print_error(const char* what, int code) {
  fmt::print(stderr, "sinew: {}\n", what);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  sinew::restart_with_better_blas(argv);
  CLI::App app{"Sinew trains, compresses, serves and plans sparse Mixture-of-Experts language models."};
  app.set_version_flag("--version", "sinew " SINEW_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  try {
    sinew::cli::add_commands(app);
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& done) {
    return app.exit(done);  // --help, --version
  } catch (const CLI::RuntimeError& leave) {
    return leave.get_exit_code();  // a command chose it and has said why
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "sinew: {} (try --help)\n", error.what());
    return 2;
  } catch (const sinew::Error& error) {
    return print_error(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return print_error("out of memory", 1);
  } catch (const std::exception& error) {
    return print_error(error.what(), 1);
  }
}
