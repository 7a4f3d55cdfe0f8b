#include "quant/gguf_export.hpp"

#include <map>

#include "base/error.hpp"
#include "base/progress.hpp"
#include "base/signals.hpp"
#include "storage/safetensors.hpp"

namespace sinew {
namespace {

// The format that holds most of the elements.
BlockFormat main_format(const ModelSource& source, const std::vector<BlockFormat>& formats) {
  std::map<BlockFormat, std::int64_t> elements;
  for (std::size_t i = 0; i < formats.size(); ++i) elements[formats[i]] += source.tensors[i].elements();
  BlockFormat best = BlockFormat::f32;
  for (const auto& [format, count] : elements) {
    if (count > elements[best]) best = format;
  }
  return best;
}

}  // namespace

std::uint32_t gguf_file_type(BlockFormat format) {
  switch (format) {
    case BlockFormat::f32:
      return 0;
    case BlockFormat::f16:
      return 1;
    case BlockFormat::q4_0:
      return 2;
    case BlockFormat::q4_1:
      return 3;
    case BlockFormat::q8_0:
      return 7;
    case BlockFormat::q5_0:
      return 8;
    case BlockFormat::q5_1:
      return 9;
    case BlockFormat::q2_k:
      return 10;
    case BlockFormat::q3_k:
      return 12;
    case BlockFormat::q4_k:
      return 15;
    case BlockFormat::q5_k:
      return 17;
    case BlockFormat::q6_k:
      return 18;
    case BlockFormat::iq4_nl:
      return 25;
    case BlockFormat::iq4_xs:
      return 30;
    case BlockFormat::bf16:
      return 32;
  }
  return 0;
}

void encode_float(BlockFormat format, const float* values, std::size_t count, std::byte* out) {
  const DType dtype = format == BlockFormat::f16    ? DType::F16
                      : format == BlockFormat::bf16 ? DType::BF16
                                                    : DType::F32;
  ensure(dtype != DType::F32 || format == BlockFormat::f32, "{} is no plain format", block_info(format).name);
  from_float(dtype, values, out, count);
}

void export_gguf(const ModelSource& source, const std::vector<BlockFormat>& formats,
                 const std::filesystem::path& out, const EncodeRows& encode) {
  GgufMetadata metadata = source.metadata;
  metadata.set_u32("general.file_type", gguf_file_type(main_format(source, formats)));
  std::vector<GgufTensor> tensors;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < source.tensors.size(); ++i) {
    const SourceTensor& tensor = source.tensors[i];
    tensors.push_back(
        {.name = tensor.name, .type = static_cast<std::uint32_t>(formats[i]), .shape = tensor.shape});
    total += static_cast<std::uint64_t>(tensor.rows.rows) *
             block_bytes(formats[i], static_cast<std::size_t>(tensor.rows.cols));
  }
  if (out.has_parent_path()) make_directories(out.parent_path());
  GgufWriter writer(out, metadata, tensors);
  Progress progress("Writing " + out.filename().string(), total, "bytes");
  std::uint64_t done = 0;
  for (std::size_t i = 0; i < source.tensors.size(); ++i) {
    const RowSource& rows = source.tensors[i].rows;
    stream_rows(
        rows, block_bytes(formats[i], static_cast<std::size_t>(rows.cols)),
        [&](const float* values, std::int64_t first, std::int64_t count, std::byte* bytes) {
          encode(i, values, first, count, bytes);
        },
        [&](const std::byte* bytes, std::size_t size) {
          if (stop_requested() != 0)
            throw Error(fmt::format("{}: stopped; nothing was written", out.string()));
          writer.write(bytes, size);
          progress.update(done += size);
        });
  }
  check_mapped_files();
  writer.commit();
  progress.finish();
}

}  // namespace sinew
