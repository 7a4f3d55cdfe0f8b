// Repacked weights kept on disk beside the model's file, so that a model is packed once and then mapped:
// loading takes a moment, and what is mapped the system can take back. docs/engine.md describes the file.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/checksum.hpp"
#include "base/files.hpp"
#include "engine/model.hpp"

namespace sinew::engine {

// Where the packed form of a model lies, and what it must belong to.
struct PackPlace {
  std::filesystem::path path;
  std::size_t bytes = 0;  // of packed weights
  Hash128 key;  // of the source files' sizes, times and beginnings, of the matrices and of their layout
};
// `bytes` of the packed `matrices`; nothing for a model that has no files.
std::optional<PackPlace> pack_place(const Model& model, std::span<WeightMatrix* const> matrices,
                                    std::size_t bytes);

// The file, mapped, weights first, every checksum compared; null when there is none, it belongs to something
// else or is damaged.
std::shared_ptr<const MappedFile> open_pack_file(const PackPlace& place);

// Writes it piece by piece; there is no file before commit(). Throws IoError. The file system gets it in
// large aligned pieces, for which the kernel takes huge pages: maps of it are read a fifth faster than of
// small ones.
class PackFileWriter {
 public:
  explicit PackFileWriter(const PackPlace& place);
  void write(const std::byte* data, std::size_t size);
  void commit();

 private:
  void close_chunk();
  const PackPlace& place_;
  AtomicFile file_;
  std::vector<std::uint64_t> sums_;
  std::vector<std::byte> chunk_;
};

}  // namespace sinew::engine
