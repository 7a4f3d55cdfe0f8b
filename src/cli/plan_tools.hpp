// The subcommands of `sinew plan`: compare, failures, serving, hardware, validate, fit.
#pragma once

#include <CLI/CLI.hpp>

namespace sinew::cli {

void add_plan_tools(CLI::App& plan);

}  // namespace sinew::cli
