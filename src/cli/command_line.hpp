// The program's command line, over CLI11. CLI11 is headers only and costs 4 s in every file that sees it, so
// command_line.cpp alone does.
#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <string>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace sinew::cli {

// What a command throws to leave with an exit code when it has said why.
struct Leave {
  int code;
};

// An option of a command; each function returns it again.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}
  Option required();
  Option capture_default_str();  // help shows the value that the variable has now
  Option range(double least, double most);
  Option range(int least, int most);
  Option range(long least, long most);
  Option one_of(std::initializer_list<std::string> values);
  Option delimiter(char between);  // of a list in one word
  Option expected(int values);     // each time it is given
  Option allow_extra_args(bool allow);
  Option take_all();
  Option type_name(const std::string& name);
  Option group(const std::string& name);
  Option needs(Option other);

 private:
  CLI::Option* option_;
};

// A command; a handle, to be copied. Names are CLI11's: "--name" or "name" for what has its place,
// "!--no-name" for a flag that clears its variable.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}
  Command add_subcommand(const std::string& name, const std::string& help);
  Command require_subcommand(int least = 1, int most = 1);
  // For the types that the end of command_line.cpp lists.
  template <typename T>
  Option add_option(const std::string& name, T& value, const std::string& help);
  Option add_flag(const std::string& name, bool& value, const std::string& help);
  Command footer(const std::string& text);
  Command callback(std::function<void()> run);
  std::size_t count(const std::string& name) const;  // how often an option was given
  bool has_subcommand() const;                       // one was given

 private:
  CLI::App* app_;
};

// Parses and runs; returns the exit code, or throws UserError for a wrong command line and what the command
// throws.
int run_command_line(int argc, char** argv, const std::function<void(Command)>& add_commands);

}  // namespace sinew::cli
