// sinew: plans, trains, compresses, serves and evaluates sparse Mixture-of-Experts language models.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "cli/commands.hpp"
#include "kernels/restart.hpp"

namespace {

int print_error(const char* what, int code) {
  fmt::print(stderr, "sinew: {}\n", what);
  return code;
}

// CLI11 calls a misspelt command "a subcommand is required"; name the nearest one instead.
void check_command(const CLI::App& app, std::string_view name) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  sinew::require(std::find(names.begin(), names.end(), name) != names.end(), "no command '{}'{} (try --help)",
                 name, sinew::did_you_mean(name, names));
}

}  // namespace

int main(int argc, char** argv) {
  sinew::restart_with_better_settings(argv);
  CLI::App app{"Sinew trains, compresses, serves and plans sparse Mixture-of-Experts language models."};
  app.set_version_flag("--version", "sinew " SINEW_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  try {
    sinew::cli::add_commands(app);
    if (argc > 1 && argv[1][0] != '-') check_command(app, argv[1]);
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
