// Which documents are held out for validation.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/checksum.hpp"

namespace sinew {

// Up to this many documents the held-out ones are chosen knowing them all; beyond it, each by its own hash.
constexpr std::size_t kPlannedDocuments = 65536;

struct SplitPlan {
  struct Seen {
    Hash128 hash;
    std::uint64_t bytes;
  };
  // A pure function of the set of documents. About `fraction` of the bytes are held out, in the order of
  // the documents' hashes; never under a tenth of a corpus or 16 KiB, whichever is less, so that a
  // validation split of a tiny corpus is of use. Where whole documents do not fit (one long document,
  // say) the end of the longest is held out.
  static SplitPlan of_all(std::vector<Seen> documents, double fraction);
  // For large corpora: held out when the hash is below `fraction` of its range. Does not depend on
  // the other documents.
  static SplitPlan by_hash(double fraction);

  bool holds_out(const Hash128& hash) const;
  // Bytes at the front of this document that stay in training, the rest being held out.
  std::optional<std::size_t> cut(const Hash128& hash, std::string_view text) const;

 private:
  std::uint64_t threshold_ = 0;  // of the hash's high half
  std::vector<Hash128> chosen_;  // sorted
  std::optional<Seen> cut_;      // hash, bytes to hold out
};

}  // namespace sinew
