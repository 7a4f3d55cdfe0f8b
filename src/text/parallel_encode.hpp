// Encodes the parts of a long text on all threads; the ids come in the order of the parts.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/threads.hpp"
#include "text/piece_cache.hpp"

namespace sinew {

// Appends to `ids` what encode(parts, cache, ids) appends for consecutive groups of `parts`. size(part)
// is in bytes. Short texts stay on the calling thread with its own `cache`.
template <class Part, class Size, class Encode>
void encode_parts(std::span<const Part> parts, const PieceCachePool& caches, PieceCache& cache,
                  std::vector<TokenId>& ids, Size&& size, Encode&& encode) {
  constexpr std::size_t kGroup = 64 * 1024;
  std::vector<std::size_t> begins{0};
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (bytes >= kGroup) {
      begins.push_back(i);
      bytes = 0;
    }
    bytes += size(parts[i]);
  }
  begins.push_back(parts.size());
  const std::size_t groups = begins.size() - 1;
  if (groups < 4) return encode(parts, cache, ids);
  std::vector<std::vector<TokenId>> made(groups);
  parallel_for(groups, 1, [&](std::size_t first, std::size_t last) {
    PieceCachePool::Lease lease(caches);
    for (std::size_t g = first; g < last; ++g)
      encode(parts.subspan(begins[g], begins[g + 1] - begins[g]), *lease, made[g]);
  });
  for (const auto& part : made) ids.insert(ids.end(), part.begin(), part.end());
}

}  // namespace sinew
