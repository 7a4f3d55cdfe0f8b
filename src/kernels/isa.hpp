// Instruction sets: what this machine has, and which one the kernels use.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sinew {

// In rising order; each includes those before it that its processors know. `dotprod` is NEON with int8 dot
// products (ARMv8.2), `vnni` AVX-512 with them, `bf16` adds bfloat16 dot products, `amx` tiles for bf16 and
// int8 (and the kernel's leave to use them).
enum class Isa { scalar, neon, dotprod, avx2, avx512, vnni, bf16, amx };

std::string_view isa_name(Isa isa);
Isa best_isa();                     // the highest this machine has
std::vector<Isa> available_isas();  // scalar .. best_isa()

// What the kernels use: SINEW_ISA=scalar|neon|dotprod|avx2|avx512|vnni|bf16|amx if set (UserError when this
// machine lacks it or the name is unknown), else best_isa(). Read once.
Isa active_isa();

}  // namespace sinew
