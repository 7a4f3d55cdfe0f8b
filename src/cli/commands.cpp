#include "cli/commands.hpp"

namespace sinew::cli {

// In the order of `sinew --help`.
void add_commands([[maybe_unused]] CLI::App& app) {
}

}  // namespace sinew::cli
