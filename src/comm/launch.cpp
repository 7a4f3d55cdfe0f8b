#include "comm/launch.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/error.hpp"
#include "base/random.hpp"

namespace sinew {
namespace {

class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}
  bool has(const char* name) const { return environment_(name) != nullptr; }
  std::string text(const char* name, const std::string& otherwise = "") const {
    const char* const value = environment_(name);
    return value == nullptr ? otherwise : value;
  }
  int number(const char* name, int otherwise) const {
    const char* const value = environment_(name);
    if (value == nullptr) return otherwise;
    int out = 0;
    const auto [stop, error] = std::from_chars(value, value + std::strlen(value), out);
    require(error == std::errc() && *stop == '\0' && out >= 0, "{} is \"{}\", not a number of a process",
            name, value);
    return out;
  }

 private:
  const Environment& environment_;
};

// Ports of one job and no other, most likely: the launcher names none.
int port_of(const std::string& job) { return 20000 + static_cast<int>(hash_name(job) % 20000); }

void check(const Launch& l, const char* rank, const char* size, const char* local) {
  require(l.size >= 1 && l.rank < l.size, "{} is {}, but {} is {}: ranks count from 0", rank, l.rank, size,
          l.size);
  require(l.local_size >= 1 && l.local_size <= l.size && l.local_rank < l.local_size,
          "{} is {} of {} on this node, but {} is {}", local, l.local_rank, l.local_size, size, l.size);
  require(l.size % l.local_size == 0, "{} is {}, which nodes of {} processes do not make up", size, l.size,
          l.local_size);
}

Launch from_torchrun(const Variables& v) {
  require(v.has("RANK") && v.has("WORLD_SIZE"), "{} is set, but {} is not: a launcher sets both",
          v.has("RANK") ? "RANK" : "WORLD_SIZE", v.has("RANK") ? "WORLD_SIZE" : "RANK");
  Launch l{.by = "torchrun"};
  l.rank = v.number("RANK", 0);
  l.size = v.number("WORLD_SIZE", 1);
  l.local_rank = v.number("LOCAL_RANK", l.rank);
  l.local_size = v.number("LOCAL_WORLD_SIZE", l.size);
  l.address = v.text("MASTER_ADDR", "127.0.0.1");
  l.port = v.number("MASTER_PORT", 29500);
  l.store_is_served = v.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  check(l, "RANK", "WORLD_SIZE", "LOCAL_RANK");
  require(v.has("MASTER_ADDR") || l.local_size == l.size,
          "WORLD_SIZE is {} over several nodes, but MASTER_ADDR is not set: name rank 0's machine", l.size);
  return l;
}

Launch from_mpirun(const Variables& v) {
  Launch l{.by = "mpirun"};
  l.rank = v.number("OMPI_COMM_WORLD_RANK", 0);
  l.size = v.number("OMPI_COMM_WORLD_SIZE", 1);
  l.local_rank = v.number("OMPI_COMM_WORLD_LOCAL_RANK", l.rank);
  l.local_size = v.number("OMPI_COMM_WORLD_LOCAL_SIZE", l.size);
  l.address = v.text("MASTER_ADDR", "127.0.0.1");
  l.port = v.number("MASTER_PORT", port_of(v.text("PMIX_NAMESPACE", v.text("OMPI_MCA_ess_base_jobid"))));
  check(l, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK");
  require(v.has("MASTER_ADDR") || l.local_size == l.size,
          "mpirun started {} processes over several nodes, but MASTER_ADDR is not set: pass rank 0's machine "
          "with -x MASTER_ADDR=HOST",
          l.size);
  return l;
}

Launch from_srun(const Variables& v) {
  Launch l{.by = "srun"};
  l.rank = v.number("SLURM_PROCID", 0);
  l.size = v.number("SLURM_STEP_NUM_TASKS", v.number("SLURM_NTASKS", 1));
  l.local_rank = v.number("SLURM_LOCALID", l.rank);
  const int nodes = v.number("SLURM_STEP_NUM_NODES", v.number("SLURM_NNODES", 1));
  require(nodes >= 1 && l.size % nodes == 0, "srun started {} processes on {} nodes: give each as many",
          l.size, nodes);
  l.local_size = l.size / nodes;
  const auto hosts = v.text("SLURM_STEP_NODELIST", v.text("SLURM_NODELIST"));
  l.address = v.text("MASTER_ADDR", nodes == 1 ? "127.0.0.1" : first_host(hosts));
  l.port = v.number("MASTER_PORT", port_of(v.text("SLURM_JOB_ID") + "." + v.text("SLURM_STEP_ID")));
  check(l, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID");
  return l;
}

const char* of_process(const char* name) { return std::getenv(name); }

}  // namespace

std::string first_host(const std::string& list) {
  const auto comma = list.find(','), bracket = list.find('[');
  if (bracket == std::string::npos || (comma != std::string::npos && comma < bracket))
    return list.substr(0, comma);
  const auto end = list.find_first_of("-,]", bracket);
  require(end != std::string::npos, "SLURM_NODELIST is \"{}\", which is no list of hosts", list);
  const auto close = list.find(']', bracket);
  const auto rest = close == std::string::npos ? std::string() : list.substr(close + 1);
  return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1) +
         rest.substr(0, rest.find(','));
}

std::optional<Launch> read_launch(const Environment& environment) {
  const Variables v(environment);
  if (v.has("RANK") || v.has("WORLD_SIZE")) return from_torchrun(v);
  if (v.has("OMPI_COMM_WORLD_SIZE")) return from_mpirun(v);
  if (v.has("SLURM_PROCID") && v.has("SLURM_STEP_NUM_TASKS")) return from_srun(v);
  return {};
}
std::optional<Launch> read_launch() { return read_launch(of_process); }

bool speaks_for_all(const Environment& environment) {
  for (const char* name : {"RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"})
    if (const char* const value = environment(name)) return std::string_view(value) == "0";
  return true;
}
bool speaks_for_all() { return speaks_for_all(of_process); }

}  // namespace sinew
