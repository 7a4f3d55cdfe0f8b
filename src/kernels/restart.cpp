#include "kernels/restart.hpp"

#include <sys/auxv.h>
#include <unistd.h>

#include <cstdlib>

#include "kernels/blas_core.hpp"

namespace sinew {
namespace {

constexpr std::string_view kHugePages = "glibc.malloc.hugetlb";

bool set(const char* name, const std::string& value) {
  return !value.empty() && ::setenv(name, value.c_str(), 1) == 0;
}

}  // namespace

std::string tunables_with_huge_pages(std::string_view now) {
  if (now.find(kHugePages) != std::string_view::npos) return "";
  std::string all(now);
  if (!all.empty()) all += ':';
  return all.append(kHugePages).append("=1");
}

void restart_with_better_settings(char** argv) {
  if (::getauxval(AT_SECURE) != 0) return;  // such programs are started without what is set here
  const char* const tunables = std::getenv("GLIBC_TUNABLES");
  bool changed = set("GLIBC_TUNABLES", tunables_with_huge_pages(tunables == nullptr ? "" : tunables));
  if (std::getenv("OPENBLAS_CORETYPE") == nullptr)
    changed = set("OPENBLAS_CORETYPE", std::string(better_blas_core(openblas_core(), best_isa()))) || changed;
  if (changed) ::execv("/proc/self/exe", argv);  // returns only where that failed: go on as things are
}

}  // namespace sinew
