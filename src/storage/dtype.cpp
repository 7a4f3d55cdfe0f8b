// The element types of safetensors and their conversions to and from float.
#include <array>
#include <cstring>

#include "base/error.hpp"
#include "base/float_formats.hpp"
#include "storage/safetensors.hpp"

namespace sinew {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  std::size_t bits;
};

constexpr std::array kTypes{
    Row{DType::BOOL, "BOOL", 8},
    Row{DType::U8, "U8", 8},
    Row{DType::I8, "I8", 8},
    Row{DType::F8_E4M3, "F8_E4M3", 8},
    Row{DType::F8_E5M2, "F8_E5M2", 8},
    Row{DType::I16, "I16", 16},
    Row{DType::U16, "U16", 16},
    Row{DType::F16, "F16", 16},
    Row{DType::BF16, "BF16", 16},
    Row{DType::I32, "I32", 32},
    Row{DType::U32, "U32", 32},
    Row{DType::F32, "F32", 32},
    Row{DType::I64, "I64", 64},
    Row{DType::U64, "U64", 64},
    Row{DType::F64, "F64", 64},
    Row{DType::F4, "F4", 4},
    Row{DType::F6_E2M3, "F6_E2M3", 6},
    Row{DType::F6_E3M2, "F6_E3M2", 6},
    Row{DType::F8_E8M0, "F8_E8M0", 8},
    Row{DType::F8_E4M3FNUZ, "F8_E4M3FNUZ", 8},
    Row{DType::F8_E5M2FNUZ, "F8_E5M2FNUZ", 8},
    Row{DType::C64, "C64", 64},
};

const Row& row(DType dtype) { return kTypes[static_cast<std::size_t>(dtype)]; }

// The data of a file may lie at any address, so elements are copied out one by one (compilers make plain
// loads of it).
template <class T, class Convert>
void convert_each(const std::byte* source, float* out, std::size_t count, Convert convert) {
  for (std::size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, source + i * sizeof(T), sizeof(T));
    out[i] = convert(value);
  }
}

template <class T>
void cast_each(const std::byte* source, float* out, std::size_t count) {
  convert_each<T>(source, out, count, [](T value) { return static_cast<float>(value); });
}

}  // namespace

std::size_t dtype_bits(DType dtype) { return row(dtype).bits; }

std::size_t dtype_size(DType dtype) {
  const Row& type = row(dtype);
  require(type.bits % 8 == 0, "an element of type {} is not a whole number of bytes", type.name);
  return type.bits / 8;
}

std::string_view dtype_name(DType dtype) { return row(dtype).name; }

DType parse_dtype(std::string_view name) {
  for (const Row& type : kTypes) {
    if (type.name == name) return type.dtype;
  }
  fail("unknown dtype '{}'", name);
}

void to_float(DType dtype, const std::byte* source, float* out, std::size_t count) {
  switch (dtype) {
    case DType::F32:
      std::memcpy(out, source, count * sizeof(float));
      return;
    case DType::F16:
      return convert_each<std::uint16_t>(source, out, count, half_to_float);
    case DType::BF16:
      return convert_each<std::uint16_t>(source, out, count, bfloat16_to_float);
    case DType::F8_E4M3:
      return convert_each<std::uint8_t>(source, out, count, float8_e4m3_to_float);
    case DType::F8_E5M2:
      return convert_each<std::uint8_t>(source, out, count, float8_e5m2_to_float);
    case DType::F64:
      return cast_each<double>(source, out, count);
    case DType::BOOL:
    case DType::U8:
      return cast_each<std::uint8_t>(source, out, count);
    case DType::I8:
      return cast_each<std::int8_t>(source, out, count);
    case DType::I16:
      return cast_each<std::int16_t>(source, out, count);
    case DType::U16:
      return cast_each<std::uint16_t>(source, out, count);
    case DType::I32:
      return cast_each<std::int32_t>(source, out, count);
    case DType::U32:
      return cast_each<std::uint32_t>(source, out, count);
    case DType::I64:
      return cast_each<std::int64_t>(source, out, count);
    case DType::U64:
      return cast_each<std::uint64_t>(source, out, count);
    default:
      fail("tensors of type {} cannot be computed with", dtype_name(dtype));
  }
}

void from_float(DType dtype, const float* source, std::byte* out, std::size_t count) {
  if (dtype == DType::F32) {
    std::memcpy(out, source, count * sizeof(float));
    return;
  }
  require(dtype == DType::F16 || dtype == DType::BF16, "weights are written as F32, F16 or BF16, not {}",
          dtype_name(dtype));
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t bits = dtype == DType::F16 ? float_to_half(source[i]) : float_to_bfloat16(source[i]);
    std::memcpy(out + 2 * i, &bits, 2);
  }
}

}  // namespace sinew
