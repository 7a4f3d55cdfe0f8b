#include "text/bpe.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>

#include "base/error.hpp"
#include "text/byte_level.hpp"
#include "text/utf8.hpp"

namespace sinew {
namespace {

constexpr std::uint64_t kNoPair = ~std::uint64_t{0};
constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();
constexpr std::size_t kShort = 32;  // up to here a scan finds the best pair faster than a heap
constexpr std::string_view kMark = "\xE2\x96\x81";

std::uint64_t key_of(TokenId left, TokenId right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) |
         static_cast<std::uint32_t>(right);
}

}  // namespace

MergeTable::MergeTable(std::size_t merges) {
  const std::size_t size = std::bit_ceil(std::max<std::size_t>(16, merges * 2));
  slots_.assign(size, Merge{kNoPair, 0, 0});
  shift_ = 64 - static_cast<std::uint32_t>(std::countr_zero(size));
}

std::size_t MergeTable::slot_of(std::uint64_t pair) const {
  std::size_t at = static_cast<std::size_t>((pair * 0x9E3779B97F4A7C15u) >> shift_);
  while (slots_[at].pair != pair && slots_[at].pair != kNoPair) at = (at + 1) & (slots_.size() - 1);
  return at;
}

void MergeTable::set(TokenId left, TokenId right, std::uint32_t rank, TokenId merged) {
  const std::uint64_t pair = key_of(left, right);
  slots_[slot_of(pair)] = {pair, rank, merged};
}

const MergeTable::Merge* MergeTable::find(TokenId left, TokenId right) const {
  const Merge& slot = slots_[slot_of(key_of(left, right))];
  return slot.pair == kNoPair ? nullptr : &slot;
}

Bpe::Bpe(std::shared_ptr<const Vocabulary> vocabulary, const std::vector<std::pair<TokenId, TokenId>>& merges,
         BpeOptions options, const std::string& origin)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)), merges_(merges.size()) {
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merges[rank];
    const std::string& tail = vocabulary_->text(right);
    require(tail.starts_with(options_.continuing_subword_prefix), "{}: merge {} continues no word", origin,
            rank);
    const std::string text = vocabulary_->text(left) + tail.substr(options_.continuing_subword_prefix.size());
    const auto merged = vocabulary_->find(text);
    require(merged.has_value(), "{}: merge {} makes \"{}\", which is not in the vocabulary", origin, rank,
            text);
    merges_.set(left, right, static_cast<std::uint32_t>(rank), *merged);
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char one = static_cast<char>(byte);
    byte_ids_[byte] = vocabulary_->find(bytes_to_chars({&one, 1})).value_or(-1);
    fallback_ids_[byte] = vocabulary_->find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  }
  cut_at_marks_ = can_cut_at_marks(merges);
}

// When no merge joins a word to the mark of the next, cutting before marks changes nothing.
bool Bpe::can_cut_at_marks(const std::vector<std::pair<TokenId, TokenId>>& merges) const {
  if (options_.bytes || options_.ignore_merges || !options_.continuing_subword_prefix.empty() ||
      !options_.end_of_word_suffix.empty() || !vocabulary_->find(kMark))
    return false;
  return std::none_of(merges.begin(), merges.end(), [&](const auto& merge) {
    return vocabulary_->text(merge.second).starts_with(kMark) &&
           !vocabulary_->text(merge.first).ends_with(kMark);
  });
}

void Bpe::cut(std::string_view piece, std::vector<std::string_view>& parts) const {
  std::size_t begin = 0;
  if (cut_at_marks_) {
    for (std::size_t at = piece.find(kMark, 1); at != std::string_view::npos;
         at = piece.find(kMark, at + 1)) {
      if (piece.substr(0, at).ends_with(kMark)) continue;
      parts.push_back(piece.substr(begin, at - begin));
      begin = at;
    }
  }
  parts.push_back(piece.substr(begin));
}

void Bpe::encode(std::string_view piece, PieceCache& cache, std::vector<TokenId>& out) const {
  if (piece.size() > PieceCache::kLongestPiece) return encode_whole(piece, out);
  const std::uint64_t hash = PieceCache::hash(piece);
  if (const auto* ids = cache.find(piece, hash)) {
    out.insert(out.end(), ids->begin(), ids->end());
    return;
  }
  const std::size_t before = out.size();
  encode_whole(piece, out);
  cache.insert(piece, hash, std::span(out).subspan(before));
}

void Bpe::encode_whole(std::string_view piece, std::vector<TokenId>& out) const {
  if (piece.empty()) return;
  if (options_.ignore_merges) {
    const auto whole = options_.bytes ? vocabulary_->find(bytes_to_chars(piece)) : vocabulary_->find(piece);
    if (whole) return out.push_back(*whole);
  }
  std::vector<TokenId> symbols;
  symbols.reserve(piece.size());
  start_symbols(piece, symbols);
  if (symbols.size() <= kShort)
    merge_short(symbols);
  else
    merge_long(symbols);
  out.insert(out.end(), symbols.begin(), symbols.end());
}

// tokenizers/src/models/bpe/model.rs, merge_word: also its order of pending unknown tokens.
void Bpe::start_symbols(std::string_view piece, std::vector<TokenId>& symbols) const {
  std::optional<TokenId> pending;  // an unknown token not yet written
  const auto flush = [&] {
    if (pending) symbols.push_back(*pending);
    pending.reset();
  };
  const auto unknown = [&] {
    if (!options_.unk) return;  // dropped, as the reference does
    if (!options_.fuse_unk) flush();
    pending = options_.unk;
  };
  if (options_.bytes && options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty()) {
    for (const char byte : piece) {
      const TokenId id = byte_ids_[static_cast<unsigned char>(byte)];
      if (id < 0) {
        unknown();
        continue;
      }
      flush();
      symbols.push_back(id);
    }
    return flush();
  }
  std::string text;
  for (std::size_t at = 0; at < piece.size();) {
    const Utf8Char c = utf8_at(piece, at);
    const std::size_t end = at + (options_.bytes ? 1 : c.length);
    text = at > 0 ? options_.continuing_subword_prefix : std::string();
    if (options_.bytes)
      text += bytes_to_chars(piece.substr(at, 1));
    else
      text += piece.substr(at, end - at);
    if (end == piece.size()) text += options_.end_of_word_suffix;
    at = end;
    if (const auto id = vocabulary_->find(text)) {
      flush();
      symbols.push_back(*id);
      continue;
    }
    const auto has_byte = [&](char byte) { return fallback_ids_[static_cast<unsigned char>(byte)] >= 0; };
    if (options_.byte_fallback && std::all_of(text.begin(), text.end(), has_byte)) {
      for (const char byte : text) symbols.push_back(fallback_ids_[static_cast<unsigned char>(byte)]);
    } else {
      unknown();
    }
  }
  flush();
}

void Bpe::merge_short(std::vector<TokenId>& symbols) const {
  std::uint32_t ranks[kShort];  // of the pair (i, i + 1)
  TokenId merged[kShort];
  std::size_t count = symbols.size();
  const auto look = [&](std::size_t i) {
    const auto* merge = i + 1 < count ? merges_.find(symbols[i], symbols[i + 1]) : nullptr;
    ranks[i] = merge == nullptr ? kNoRank : merge->rank;
    merged[i] = merge == nullptr ? -1 : merge->merged;
  };
  for (std::size_t i = 0; i < count; ++i) look(i);
  while (count > 1) {
    const std::size_t best = static_cast<std::size_t>(std::min_element(ranks, ranks + count - 1) - ranks);
    if (ranks[best] == kNoRank) break;
    symbols[best] = merged[best];
    std::copy(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              symbols.begin() + static_cast<std::ptrdiff_t>(count),
              symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    std::copy(ranks + best + 2, ranks + count, ranks + best + 1);
    std::copy(merged + best + 2, merged + count, merged + best + 1);
    --count;
    look(best);
    if (best > 0) look(best - 1);
  }
  symbols.resize(count);
}

void Bpe::merge_long(std::vector<TokenId>& symbols) const {
  struct Link {
    std::int64_t previous, next;
    std::uint32_t rank;  // of the pair with `next` as it is now
  };
  struct Entry {
    std::uint32_t rank;
    std::int64_t at;
    bool operator>(const Entry& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto count = static_cast<std::int64_t>(symbols.size());
  std::vector<Link> links(symbols.size());
  std::vector<Entry> entries;
  const auto link = [&](std::int64_t i) -> Link& { return links[static_cast<std::size_t>(i)]; };
  const auto symbol = [&](std::int64_t i) -> TokenId& { return symbols[static_cast<std::size_t>(i)]; };
  const auto look = [&](std::int64_t i) {
    const std::int64_t next = link(i).next;
    const auto* merge = next < count ? merges_.find(symbol(i), symbol(next)) : nullptr;
    link(i).rank = merge == nullptr ? kNoRank : merge->rank;
    return link(i).rank != kNoRank;
  };
  for (std::int64_t i = 0; i < count; ++i) {
    link(i) = {i - 1, i + 1, kNoRank};
    if (look(i)) entries.push_back({link(i).rank, i});
  }
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue(std::greater<>{}, std::move(entries));
  while (!queue.empty()) {
    const Entry top = queue.top();
    queue.pop();
    const std::int64_t at = top.at;
    if (symbol(at) < 0 || link(at).rank != top.rank) continue;  // merged away, or another pair by now
    const std::int64_t right = link(at).next;
    symbol(at) = merges_.find(symbol(at), symbol(right))->merged;
    symbol(right) = -1;
    link(at).next = link(right).next;
    if (link(at).next < count) link(link(at).next).previous = at;
    if (look(at)) queue.push({link(at).rank, at});
    const std::int64_t previous = link(at).previous;
    if (previous >= 0 && look(previous)) queue.push({link(previous).rank, previous});
  }
  std::erase(symbols, -1);
}

}  // namespace sinew
