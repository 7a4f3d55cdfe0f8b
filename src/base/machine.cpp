#include "base/machine.hpp"

#include <sched.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <memory>
#include <sstream>

#include "base/clock.hpp"
#include "base/threads.hpp"

namespace sinew {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

// The value of the first line "name<separator> value" or "name=value".
std::string field(const std::string& text, const std::string& name, char separator) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name)) continue;
    const auto at = line.find(separator);
    if (at == std::string::npos) continue;
    auto value = line.substr(at + 1);
    value.erase(0, value.find_first_not_of(" \t\""));
    value.erase(value.find_last_not_of(" \t\"") + 1);
    return value;
  }
  return "";
}

std::uint64_t kibibytes(const std::string& text) {
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value * 1024;
}

// The folder of this process's control group (version 2), or of the root.
fs::path control_group() {
  std::istringstream lines(contents("/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("0::")) return fs::path("/sys/fs/cgroup") / fs::path(line.substr(3)).relative_path();
  return "/sys/fs/cgroup";
}

void read_memory(Machine& machine) {
  const auto info = contents("/proc/meminfo");
  machine.memory = kibibytes(field(info, "MemTotal", ':'));
  machine.memory_free = kibibytes(field(info, "MemAvailable", ':'));
  const auto group = control_group();
  const auto limit = parse_memory_limit(contents(group / "memory.max"));
  if (limit == 0 || limit >= machine.memory) return;
  const auto used = parse_memory_limit(contents(group / "memory.current"));
  machine.memory = limit;
  machine.memory_free = std::min(machine.memory_free, limit - std::min(used, limit));
}

std::vector<std::string> nvidia_cards() {
  std::vector<std::string> cards;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc/driver/nvidia/gpus", error)) {
    const auto name = field(contents(entry.path() / "information"), "Model", ':');
    cards.push_back(name.empty() ? "NVIDIA card" : name);
  }
  return cards;
}

}  // namespace

std::uint64_t parse_memory_limit(const std::string& text) {
  std::uint64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() ? value : 0;
}

double parse_cpu_quota(const std::string& text) {
  std::istringstream words(text);
  double quota = 0, period = 0;
  return words >> quota >> period && period > 0 ? quota / period : 0;
}

Machine this_machine() {
  Machine machine;
  machine.processor = field(contents("/proc/cpuinfo"), "model name", ':');
  machine.system = field(contents("/etc/os-release"), "PRETTY_NAME", '=');
  utsname names{};
  if (::uname(&names) == 0) machine.kernel = names.release;
  cpu_set_t set;
  machine.cores_online = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  machine.cores = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : machine.cores_online;
  machine.cpu_quota = parse_cpu_quota(contents(control_group() / "cpu.max"));
  read_memory(machine);
  machine.gpus = nvidia_cards();
  return machine;
}

DiskSpace disk_space(const fs::path& where) {
  struct statvfs info {};
  if (::statvfs(where.c_str(), &info) != 0) return {};
  return {std::uint64_t{info.f_bavail} * info.f_frsize, std::uint64_t{info.f_blocks} * info.f_frsize};
}

double measure_memory_bandwidth() {
  constexpr std::size_t kCount = std::size_t{1} << 24;  // 64 MiB a stream
  const std::unique_ptr<float[]> a(new float[kCount]), b(new float[kCount]), c(new float[kCount]);
  float* const out = a.get();
  const float *const x = b.get(), *const y = c.get();
  parallel_for(kCount, kCount / 64,
               [&](std::size_t begin, std::size_t end) {  // each page near its first user
                 for (std::size_t i = begin; i < end; ++i) a[i] = b[i] = c[i] = 1.0F;
               });
  double best = 0;
  for (int pass = 0; pass < 8; ++pass) {
    const double start = clock_seconds();
    parallel_for(kCount, kCount / 64, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) out[i] = x[i] + 3.0F * y[i];
    });
    const double seconds = clock_seconds() - start;
    best = std::max(best, 3.0 * sizeof(float) * static_cast<double>(kCount) / seconds);
  }
  return best;
}

}  // namespace sinew
