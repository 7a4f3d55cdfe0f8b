#include "cli/command_line.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.hpp"
#include "base/text.hpp"

namespace sinew::cli {
namespace {

// CLI11 calls a misspelt command "a subcommand is required"; name the nearest one instead.
void check_command(const CLI::App& app, std::string_view name) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  require(std::find(names.begin(), names.end(), name) != names.end(), "no command '{}'{} (try --help)", name,
          did_you_mean(name, names));
}

}  // namespace

Option Option::required() {
  option_->required();
  return *this;
}

Option Option::capture_default_str() {
  option_->capture_default_str();
  return *this;
}

Option Option::range(double least, double most) {
  option_->check(CLI::Range(least, most));
  return *this;
}

Option Option::range(int least, int most) {
  option_->check(CLI::Range(least, most));
  return *this;
}

Option Option::range(long least, long most) {
  option_->check(CLI::Range(least, most));
  return *this;
}

Option Option::one_of(std::initializer_list<std::string> values) {
  option_->check(CLI::IsMember(std::vector<std::string>(values)));
  return *this;
}

Option Option::delimiter(char between) {
  option_->delimiter(between);
  return *this;
}

Option Option::expected(int values) {
  option_->expected(values);
  return *this;
}

Option Option::allow_extra_args(bool allow) {
  option_->allow_extra_args(allow);
  return *this;
}

Option Option::take_all() {
  option_->take_all();
  return *this;
}

Option Option::type_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Option Option::group(const std::string& name) {
  option_->group(name);
  return *this;
}

Option Option::needs(Option other) {
  option_->needs(other.option_);
  return *this;
}

Command Command::add_subcommand(const std::string& name, const std::string& help) {
  return Command(app_->add_subcommand(name, help));
}

Command Command::require_subcommand(int least, int most) {
  app_->require_subcommand(static_cast<std::size_t>(least), static_cast<std::size_t>(most));
  return *this;
}

template <typename T>
Option Command::add_option(const std::string& name, T& value, const std::string& help) {
  return Option(app_->add_option(name, value, help));
}

Option Command::add_flag(const std::string& name, bool& value, const std::string& help) {
  return Option(app_->add_flag(name, value, help));
}

Command Command::footer(const std::string& text) {
  app_->footer(text);
  return *this;
}

Command Command::callback(std::function<void()> run) {
  app_->callback(std::move(run));
  return *this;
}

std::size_t Command::count(const std::string& name) const { return app_->count(name); }

bool Command::has_subcommand() const { return !app_->get_subcommands().empty(); }

int run_command_line(int argc, char** argv, const std::function<void(Command)>& add_commands) {
  CLI::App app{"Sinew trains, compresses, serves and plans sparse Mixture-of-Experts language models."};
  app.set_version_flag("--version", "sinew " SINEW_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  add_commands(Command(&app));
  if (argc > 1 && argv[1][0] != '-') check_command(app, argv[1]);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& done) {
    return app.exit(done);  // --help, --version
  } catch (const CLI::ParseError& error) {
    fail("{} (try --help)", error.what());
  } catch (const Leave& leave) {
    return leave.code;
  }
}

// The types of options.
template Option Command::add_option(const std::string&, std::string&, const std::string&);
template Option Command::add_option(const std::string&, std::filesystem::path&, const std::string&);
template Option Command::add_option(const std::string&, int&, const std::string&);
template Option Command::add_option(const std::string&, std::int64_t&, const std::string&);
template Option Command::add_option(const std::string&, std::uint64_t&, const std::string&);
template Option Command::add_option(const std::string&, float&, const std::string&);
template Option Command::add_option(const std::string&, double&, const std::string&);
template Option Command::add_option(const std::string&, std::vector<std::string>&, const std::string&);
template Option Command::add_option(const std::string&, std::vector<std::int64_t>&, const std::string&);
template Option Command::add_option(const std::string&, std::vector<std::uint64_t>&, const std::string&);

}  // namespace sinew::cli
