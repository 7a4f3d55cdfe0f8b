#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.hpp"

#include <pcre2.h>

#include <utility>

#include "base/error.hpp"
#include "text/utf8.hpp"

namespace sinew {
namespace {

constexpr std::uint32_t kMatchLimit = 10'000'000, kHeapLimitKiB = 64 * 1024;

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
using Code = std::unique_ptr<pcre2_code, FreeCode>;

Code compile(const std::string& pattern, const std::string& origin) {
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, 100);
  int error = 0;
  std::size_t offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                          context));
  pcre2_compile_context_free(context);
  if (!code) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof message);
    fail("{}: the regular expression is not supported: {} at character {}", origin,
         reinterpret_cast<const char*>(message), offset);
  }
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter runs
  return code;
}

// What one thread needs to match: results, limits, a stack for compiled code.
struct Workspace {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, 8 * 1024 * 1024, nullptr);
  Workspace() {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Workspace() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
};

}  // namespace

struct Pattern::Impl {
  std::string text;    // the literal, or the translated expression
  std::string origin;  // for errors
  bool is_literal = false, jit = false;
  Code code;
};

Pattern Pattern::literal(std::string text, const std::string& origin) {
  require(!text.empty(), "{}: an empty pattern is not supported", origin);
  auto impl = std::make_shared<Impl>();
  impl->text = std::move(text);
  impl->origin = origin;
  impl->is_literal = true;
  Pattern pattern;
  pattern.impl_ = std::move(impl);
  return pattern;
}

Pattern Pattern::regex(std::string_view oniguruma, const std::string& origin) {
  require(oniguruma.size() <= 65536, "{}: the regular expression is longer than 65536 bytes", origin);
  auto impl = std::make_shared<Impl>();
  impl->text = translate_oniguruma(oniguruma, origin);
  impl->origin = origin;
  impl->code = compile(impl->text, origin);
  std::size_t jit_size = 0;
  impl->jit = pcre2_pattern_info(impl->code.get(), PCRE2_INFO_JITSIZE, &jit_size) == 0 && jit_size > 0;
  Pattern pattern;
  pattern.impl_ = std::move(impl);
  return pattern;
}

std::size_t Pattern::next_char(std::string_view text, std::size_t at) {
  return at < text.size() ? at + utf8_at(text, at).length : at + 1;
}

bool Pattern::find(std::string_view text, std::size_t from, Match& match) const {
  const Impl& impl = *impl_;
  if (impl.is_literal) {
    const std::size_t at = text.find(impl.text, from);
    match = {at, at + impl.text.size()};
    return at != std::string_view::npos;
  }
  thread_local Workspace work;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data() == nullptr ? "" : text.data());
  int found = PCRE2_ERROR_JIT_STACKLIMIT;
  if (impl.jit)
    found = pcre2_jit_match(impl.code.get(), subject, text.size(), from, 0, work.data, work.context);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT)
    found = pcre2_match(impl.code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                        work.data, work.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  require(found >= 0, "{}: the regular expression needs too many steps on this text (PCRE2 error {})",
          impl.origin, found);
  const std::size_t* range = pcre2_get_ovector_pointer(work.data);
  match = {range[0], range[1]};
  return true;
}

}  // namespace sinew
