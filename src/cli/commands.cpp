#include "cli/commands.hpp"

namespace sinew::cli {

// In the order of `sinew --help`.
void add_commands(CLI::App& app) {
  add_convert(app);
  add_inspect(app);
  add_schedule(app);
}

}  // namespace sinew::cli
