#include "text/pre_tokenizer.hpp"

#include <algorithm>

#include "text/byte_level.hpp"
#include "text/utf8.hpp"

namespace sinew {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

struct Part {
  std::size_t begin, end;
  bool matched;
};

// tokenizers/src/tokenizer/normalizer.rs, NormalizedString::split.
class Splitter {
 public:
  Splitter(const SplitPieces& step, std::vector<Piece>& out) : step_(step), out_(out) {}

  void operator()(const Piece& piece) {
    if (piece.utf8 == Piece::Utf8::valid) return valid(piece);
    if (piece.utf8 == Piece::Utf8::invalid) return out_.push_back(piece);
    each_utf8_run(piece.text, [&](std::string_view run, bool is_valid) {
      const Piece part{run, piece.at_start && run.data() == piece.text.data(),
                       is_valid ? Piece::Utf8::valid : Piece::Utf8::invalid};
      if (is_valid)
        valid(part);
      else
        out_.push_back(part);
    });
  }

 private:
  const SplitPieces& step_;
  std::vector<Piece>& out_;
  std::vector<Part> parts_, joined_;

  void emit(const Piece& piece, std::size_t begin, std::size_t end) {
    if (begin < end)
      out_.push_back(
          {piece.text.substr(begin, end - begin), piece.at_start && begin == 0, Piece::Utf8::valid});
  }

  void valid(const Piece& piece) {
    if (step_.behavior == SplitBehavior::isolated) {
      step_.pattern.each_piece(piece.text,
                               [&](std::size_t begin, std::size_t end, bool) { emit(piece, begin, end); });
      return;
    }
    parts_.clear();
    step_.pattern.each_piece(piece.text, [&](std::size_t begin, std::size_t end, bool matched) {
      parts_.push_back({begin, end, matched != step_.invert});
    });
    switch (step_.behavior) {
      case SplitBehavior::removed:
        for (const Part& part : parts_)
          if (!part.matched) emit(piece, part.begin, part.end);
        return;
      case SplitBehavior::contiguous:
        join_contiguous();
        break;
      case SplitBehavior::merged_with_previous:
        join_previous();
        break;
      default:
        join_next();
        break;
    }
    for (const Part& part : joined_) emit(piece, part.begin, part.end);
  }

  void join_contiguous() {
    joined_.clear();
    bool previous = false;
    for (const Part& part : parts_) {
      if (part.matched == previous && !joined_.empty())
        joined_.back().end = part.end;
      else
        joined_.push_back(part);
      previous = part.matched;
    }
  }

  void join_previous() {
    joined_.clear();
    bool previous = false;
    for (const Part& part : parts_) {
      if (part.matched && !previous && !joined_.empty())
        joined_.back().end = part.end;
      else
        joined_.push_back(part);
      previous = part.matched;
    }
  }

  void join_next() {
    joined_.clear();
    bool previous = false;
    for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) {
      if (part->matched && !previous && !joined_.empty())
        joined_.back().begin = part->begin;
      else
        joined_.push_back(*part);
      previous = part->matched;
    }
    std::reverse(joined_.begin(), joined_.end());
  }
};

void run_step(const SplitPieces& step, std::vector<Piece>& pieces, std::deque<std::string>&) {
  std::vector<Piece> out;
  out.reserve(pieces.size() + pieces.size() / 2);
  Splitter split(step, out);
  for (const Piece& piece : pieces) split(piece);
  pieces.swap(out);
}

void run_step(const PrefixSpace&, std::vector<Piece>& pieces, std::deque<std::string>& texts) {
  for (Piece& piece : pieces)
    if (!piece.text.starts_with(' ')) piece.text = texts.emplace_back(" " + std::string(piece.text));
}

void run_step(const MapBytes&, std::vector<Piece>& pieces, std::deque<std::string>& texts) {
  for (Piece& piece : pieces) {
    piece.text = texts.emplace_back(bytes_to_chars(piece.text));
    piece.utf8 = Piece::Utf8::valid;
  }
}

void run_step(const MetaspaceStep& step, std::vector<Piece>& pieces, std::deque<std::string>& texts) {
  using Prepend = MetaspaceStep::Prepend;
  for (Piece& piece : pieces) {
    std::string text;
    text.reserve(piece.text.size() + 16);
    for (const char c : piece.text) {
      if (c == ' ')
        text += step.mark;
      else
        text += c;
    }
    const bool wanted = step.prepend == Prepend::always || (step.prepend == Prepend::first && piece.at_start);
    if (wanted && !text.starts_with(step.mark)) text.insert(0, step.mark);
    piece.text = texts.emplace_back(std::move(text));
  }
}

SplitBehavior parse_behavior(const JsonPlace& place, const std::string& name) {
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  fail("{}: no split behavior \"{}\"", place.where, name);
}

void parse_metaspace(const JsonPlace& place, PreTokenizer& out) {
  const std::string mark = place.text("replacement", "\xE2\x96\x81");
  const std::string scheme =
      place.flag("add_prefix_space", true) ? place.text("prepend_scheme", "always") : std::string("never");
  using Prepend = MetaspaceStep::Prepend;
  require(scheme == "always" || scheme == "first" || scheme == "never", "{}: no prepend_scheme \"{}\"",
          place.where, scheme);
  require(!mark.empty() && utf8_at(mark, 0).length == mark.size(), "{}.replacement must be one character",
          place.where);
  out.add(MetaspaceStep{mark, scheme == "always"  ? Prepend::always
                              : scheme == "first" ? Prepend::first
                                                  : Prepend::never});
  if (place.flag("split", true))
    out.add(SplitPieces{Pattern::literal(mark, place.where), SplitBehavior::merged_with_next});
}

void parse_into(const JsonPlace& place, PreTokenizer& out) {
  constexpr const char* kPunctuation = R"([!-\/:-@\[-`{-~\p{P}])";
  const std::string type = place.text("type");
  const auto split = [&](const char* regex, SplitBehavior behavior, bool invert = false) {
    out.add(SplitPieces{Pattern::regex(regex, place.where), behavior, invert});
  };
  if (type == "Sequence") {
    for (const auto& inner : place.list("pretokenizers"))
      parse_into(place.enter(inner, "pretokenizers"), out);
  } else if (type == "ByteLevel") {
    if (place.flag("add_prefix_space", true)) out.add(PrefixSpace{});
    if (place.flag("use_regex", true)) split(kGpt2Pattern, SplitBehavior::isolated);
    out.add(MapBytes{});
  } else if (type == "Split") {
    out.add(SplitPieces{parse_pattern(place), parse_behavior(place, place.text("behavior")),
                        place.flag("invert", false)});
  } else if (type == "Digits") {
    split(R"(\p{N})",
          place.flag("individual_digits", false) ? SplitBehavior::isolated : SplitBehavior::contiguous);
  } else if (type == "Punctuation") {
    split(kPunctuation, parse_behavior(place, place.text("behavior", "Isolated")));
  } else if (type == "Metaspace") {
    parse_metaspace(place, out);
  } else if (type == "Whitespace") {
    split(R"(\w+|[^\w\s]+)", SplitBehavior::removed, true);
  } else if (type == "WhitespaceSplit") {
    split(R"(\s)", SplitBehavior::removed);
  } else if (type == "BertPreTokenizer") {
    split(R"(\s)", SplitBehavior::removed);
    split(kPunctuation, SplitBehavior::isolated);
  } else if (type == "CharDelimiterSplit") {
    out.add(SplitPieces{Pattern::literal(place.text("delimiter"), place.where), SplitBehavior::removed});
  } else {
    fail(
        "{}: the pre-tokenizer \"{}\" is not supported (supported: ByteLevel, Split, Digits, Punctuation, "
        "Metaspace, "
        "Whitespace, WhitespaceSplit, BertPreTokenizer, CharDelimiterSplit, Sequence)",
        place.where, type);
  }
}

}  // namespace

void PreTokenizer::add(Step step) { steps_.push_back(std::move(step)); }

void PreTokenizer::run(std::vector<Piece>& pieces, std::deque<std::string>& texts, std::size_t first,
                       std::size_t last) const {
  for (std::size_t i = first; i < last; ++i)
    std::visit([&](const auto& step) { run_step(step, pieces, texts); }, steps_[i]);
}

PreTokenizer parse_pre_tokenizer(const JsonPlace& place) {
  PreTokenizer pre_tokenizer;
  parse_into(place, pre_tokenizer);
  return pre_tokenizer;
}

}  // namespace sinew
