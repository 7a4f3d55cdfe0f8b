#include "comm/launch.hpp"

#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

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

// RANK and WORLD_SIZE left over from elsewhere would make several processes believe that they are the same
// one. torchrun itself may be started once a node by another launcher, and so may others that set LOCAL_RANK:
// then there are more ranks than that launcher has processes.
void check_outer(const Variables& v, const Launch& l) {
  if (v.has("TORCHELASTIC_RUN_ID") || v.has("SINEW_SPAWNED")) return;
  const std::pair<const char*, const char*> outer[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                                       {"PMI_RANK", "PMI_SIZE"},
                                                       {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}};
  for (const auto& [rank, size] : outer) {
    if (!v.has(rank) || !v.has(size)) continue;
    const int there = v.number(size, 1), place = v.number(rank, 0);
    require(l.size >= there,
            "WORLD_SIZE is {}, but {} is {}: unset RANK and WORLD_SIZE, or set them to match", l.size, size,
            there);
    require(l.size != there || l.rank == place,
            "RANK is {}, but {} is {}: unset RANK and WORLD_SIZE, or set them to match", l.rank, rank, place);
  }
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
  check_outer(v, l);
  require(v.has("MASTER_ADDR") || l.local_size == l.size,
          "WORLD_SIZE is {} over several nodes, but MASTER_ADDR is not set: name rank 0's machine", l.size);
  return l;
}

// How an MPI names its variables.
struct MpiNames {
  const char *rank, *size, *local_rank, *local_size, *pass;
};
constexpr MpiNames kOpenMpi{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                            "OMPI_COMM_WORLD_LOCAL_SIZE", "-x MASTER_ADDR=HOST"};
constexpr MpiNames kHydra{"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS",  // MPICH, Intel MPI
                          "-env MASTER_ADDR HOST"};

Launch from_mpirun(const Variables& v, const MpiNames& names, int port) {
  Launch l{.by = "mpirun"};
  require(v.has(names.rank), "{} is set, but {} is not: mpirun sets both", names.size, names.rank);
  l.rank = v.number(names.rank, 0);
  l.size = v.number(names.size, 1);
  l.local_rank = v.number(names.local_rank, l.rank);
  l.local_size = v.number(names.local_size, l.size);
  l.address = v.text("MASTER_ADDR", "127.0.0.1");
  l.port = v.number("MASTER_PORT", port);
  check(l, names.rank, names.size, names.local_rank);
  require(v.has("MASTER_ADDR") || l.local_size == l.size,
          "mpirun started {} processes over several nodes, but MASTER_ADDR is not set: pass rank 0's machine "
          "with {}",
          l.size, names.pass);
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
  if (v.has("OMPI_COMM_WORLD_SIZE"))
    return from_mpirun(v, kOpenMpi, port_of(v.text("PMIX_NAMESPACE", v.text("OMPI_MCA_ess_base_jobid"))));
  if (v.has("PMI_SIZE") && v.has("MPI_LOCALNRANKS"))  // its processes of one node have one parent
    return from_mpirun(v, kHydra,
                       v.number("MPI_LOCALNRANKS", 1) == v.number("PMI_SIZE", 1)
                           ? port_of(std::to_string(::getppid()))
                           : 29500);
  if (v.has("SLURM_PROCID") && v.has("SLURM_STEP_NUM_TASKS")) return from_srun(v);
  return {};
}
std::optional<Launch> read_launch() { return read_launch(of_process); }

bool speaks_for_all(const Environment& environment) {
  const std::pair<const char*, const char*> names[] = {{"RANK", "WORLD_SIZE"},
                                                       {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                                       {"PMI_RANK", "PMI_SIZE"},
                                                       {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}};
  const auto number = [&](const char* name) {
    const char* const value = environment(name);
    int out = -1;
    if (value != nullptr) std::from_chars(value, value + std::strlen(value), out);
    return out;
  };
  bool first = true;
  for (const auto& [rank, size] : names) {
    const int own = number(rank), all = number(size);
    if (environment(rank) == nullptr) continue;
    if (own < 0 || (all >= 0 && own >= all)) return true;  // nobody else knows
    first = first && own == 0;
  }
  return first;
}
bool speaks_for_all() { return speaks_for_all(of_process); }

}  // namespace sinew
