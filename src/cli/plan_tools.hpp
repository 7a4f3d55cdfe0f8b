// The subcommands of `sinew plan`: compare, failures, serving, hardware, validate, fit.
#pragma once

#include "cli/command_line.hpp"

namespace sinew::cli {

void add_plan_tools(Command plan);

}  // namespace sinew::cli
