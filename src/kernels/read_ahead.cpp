#include "kernels/read_ahead.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace sinew {
namespace {

// Family 26 and later of AMD: Zen 5.
bool is_zen_5() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0) return false;
  if (b != signature_AMD_ebx || c != signature_AMD_ecx || d != signature_AMD_edx) return false;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return false;
  return (a >> 8 & 15) + (a >> 20 & 255) >= 26;
#else
  return false;
#endif
}

ReadAhead& chosen() {
  static ReadAhead how = is_zen_5() ? ReadAhead{.far = 4096, .near = 0} : ReadAhead{};
  return how;
}

}  // namespace

const ReadAhead& read_ahead() { return chosen(); }
void use_read_ahead(const ReadAhead& how) { chosen() = how; }

}  // namespace sinew
