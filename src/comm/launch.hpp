// Which process of how many this is, as its launcher says.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace sinew {

struct Launch {
  std::string by;  // "torchrun", "mpirun", "srun"
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // on this node
  std::string address = "127.0.0.1";   // of rank 0's machine
  int port = 0;
  bool store_is_served = false;  // by the launcher, at address:port; else rank 0 serves it
};

using Environment = std::function<const char*(const char*)>;

// What the variables of torchrun (and --ranks) say, else those of mpirun, else those of srun; nothing when
// there are none. Throws UserError when they contradict each other.
std::optional<Launch> read_launch(const Environment& environment);
std::optional<Launch> read_launch();  // of this process

// Whether this process is the one to say what read_launch() throws: rank 0, by every launcher's word, or one
// whose own rank makes no sense, which no other knows.
bool speaks_for_all(const Environment& environment);
bool speaks_for_all();

// The first host of a Slurm list: "node[07-09,12],gpu3" -> "node07".
std::string first_host(const std::string& list);

}  // namespace sinew
