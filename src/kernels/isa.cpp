#include "kernels/isa.hpp"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <array>
#include <cstdlib>

#include "base/error.hpp"
#include "base/text.hpp"

namespace sinew {
namespace {

constexpr std::array<std::string_view, 6> kNames{"scalar", "avx2", "avx512", "vnni", "bf16", "amx"};

// Linux lets a process use the 8 KiB of tile registers only after it has asked (arch_prctl(2)).
bool tiles_granted() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Isa detect_isa() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::scalar;
  if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl"))
    return Isa::avx2;
  if (!__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
  if (!__builtin_cpu_supports("avx512bf16")) return Isa::vnni;
  const bool tiles = __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
                     __builtin_cpu_supports("amx-int8") && tiles_granted();
  return tiles ? Isa::amx : Isa::bf16;
#else
  return Isa::scalar;
#endif
}

Isa chosen_isa() {
  const char* name = std::getenv("SINEW_ISA");
  if (name == nullptr) return best_isa();
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] != name) continue;
    require(static_cast<Isa>(i) <= best_isa(), "SINEW_ISA={}: this machine has only {}", name,
            isa_name(best_isa()));
    return static_cast<Isa>(i);
  }
  const std::vector<std::string> names(kNames.begin(), kNames.end());
  fail("SINEW_ISA={}: unknown instruction set; one of {}", name, join(names, ", "));
}

}  // namespace

std::string_view isa_name(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

Isa best_isa() {
  static const Isa isa = detect_isa();
  return isa;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> list;
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i) list.push_back(static_cast<Isa>(i));
  return list;
}

Isa active_isa() {
  static const Isa isa = chosen_isa();
  return isa;
}

}  // namespace sinew
