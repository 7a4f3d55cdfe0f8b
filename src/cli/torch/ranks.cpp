#include "cli/torch/ranks.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>
#include "cli/command_line.hpp"

#include "base/files.hpp"
#include "base/threads.hpp"
#include "comm/spawn.hpp"

namespace sinew::cli {

void run_as_ranks(int ranks) {
  std::vector<std::string> arguments;
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  for (std::string argument; std::getline(file, argument, '\0');) arguments.push_back(argument);
  arguments[0] = fs::read_symlink("/proc/self/exe").string();
  if (const int code = spawn_ranks(arguments, ranks); code != 0) throw Leave{code};
}

void share_cores(const Launch& launch) {
  follow_parent();
  ::setenv("OMP_WAIT_POLICY", "passive", 0);
  const auto threads = std::to_string(std::max(1, default_threads() / launch.local_size));
  ::setenv("SINEW_THREADS", threads.c_str(), 0);
  at::set_num_threads(default_threads());
}

}  // namespace sinew::cli
