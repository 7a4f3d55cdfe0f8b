// What this machine offers a process: processor, memory, disk, graphics cards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace sinew {

struct Machine {
  std::string processor;          // "Intel(R) Xeon(R) Processor"
  std::string system;             // "Debian GNU/Linux 12 (bookworm)"
  std::string kernel;             // "6.1.0"
  int cores = 0;                  // logical ones this process may run on
  int cores_online = 0;           // of the whole machine
  double cpu_quota = 0;           // cores a control group grants; 0: no limit
  std::uint64_t memory = 0;       // bytes, the smaller of the machine's and the control group's
  std::uint64_t memory_free = 0;  // bytes available without swapping, within that
  std::vector<std::string> gpus;  // names of NVIDIA cards the kernel's driver shows
};

// Read from /proc, /sys and /dev; what cannot be read stays empty.
Machine this_machine();

struct DiskSpace {
  std::uint64_t free = 0, size = 0;  // bytes; zero when unknown
};
DiskSpace disk_space(const std::filesystem::path& where);

// Bytes a second of a STREAM triad (a[i] = b[i] + s c[i], three streams counted) over arrays far larger than
// the caches, on all threads; the best of a few passes. Takes about half a second.
double measure_memory_bandwidth();

// The limit a control group file gives ("max" or bytes), 0 for none; and the quota of a cpu.max line.
std::uint64_t parse_memory_limit(const std::string& text);
double parse_cpu_quota(const std::string& text);

}  // namespace sinew
