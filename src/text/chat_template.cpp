#include "text/chat_template.hpp"

#include <array>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/files.hpp"
#include "base/text.hpp"
#include "storage/gguf.hpp"

namespace sinew {
namespace {

constexpr std::uint64_t kMaxConfig = std::uint64_t{1} << 26;
constexpr std::array<std::string_view, 9> kNames{"chatml",  "deepseek", "deepseek-v2", "llama3", "llama2",
                                                 "mistral", "zephyr",   "phi3",        "plain"};

// DeepSeek's marks have full-width bars and a lower one eighth block.
constexpr std::string_view kBegin =
    "<\xEF\xBD\x9C"
    "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>";
constexpr std::string_view kEnd =
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>";
constexpr std::string_view kUser = "<\xEF\xBD\x9CUser\xEF\xBD\x9C>";
constexpr std::string_view kAssistant =
    "<\xEF\xBD\x9C"
    "Assistant\xEF\xBD\x9C>";

std::string trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

// One mark before and one after each message, as most formats have it.
struct Marks {
  std::string_view begin, before_role, after_role, after, answer;
};

std::string with_marks(const Marks& marks, std::span<const ChatMessage> messages) {
  std::string out(marks.begin);
  for (const ChatMessage& m : messages)
    out += fmt::format("{}{}{}{}{}", marks.before_role, m.role, marks.after_role, trimmed(m.content),
                       marks.after);
  return out + std::string(marks.answer);
}

std::string deepseek(std::span<const ChatMessage> messages) {
  std::string system, out;
  for (const ChatMessage& m : messages) {
    if (m.role == "system")
      system += (system.empty() ? "" : "\n\n") + m.content;
    else if (m.role == "user")
      out += std::string(kUser) + m.content;
    else
      out += std::string(kAssistant) + m.content + std::string(kEnd);
  }
  return std::string(kBegin) + system + out + std::string(kAssistant);
}

std::string deepseek_v2(std::span<const ChatMessage> messages) {
  std::string out(kBegin);
  for (const ChatMessage& m : messages) {
    if (m.role == "system")
      out += m.content + "\n\n";
    else if (m.role == "user")
      out += "User: " + m.content + "\n\n";
    else
      out += "Assistant: " + m.content + std::string(kEnd);
  }
  return out + "Assistant:";
}

// Llama 2 puts the system's words into the first question, Mistral before it.
std::string instructions(std::span<const ChatMessage> messages, bool llama) {
  std::string system, out = llama ? "" : "<s>";
  for (const ChatMessage& m : messages) {
    if (m.role == "system") {
      system = llama ? "<<SYS>>\n" + trimmed(m.content) + "\n<</SYS>>\n\n" : trimmed(m.content) + "\n\n";
    } else if (m.role == "user") {
      out += (llama ? "<s>[INST] " : "[INST] ") + system + trimmed(m.content) + " [/INST]";
      system.clear();
    } else {
      out += " " + trimmed(m.content) + (llama ? " </s>" : "</s>");
    }
  }
  return out;
}

std::string plain(std::span<const ChatMessage> messages) {
  std::string out;
  for (const ChatMessage& m : messages) {
    const char* const name = m.role == "user" ? "User: " : m.role == "assistant" ? "Assistant: " : "";
    out += name + trimmed(m.content) + "\n\n";
  }
  return out + "Assistant:";
}

// `chat_template` is text, or a list of named ones of which "default" is meant.
std::string template_of(const nlohmann::json& config) {
  if (!config.is_object() || !config.contains("chat_template")) return {};
  const auto& value = config["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return {};
  for (const auto& named : value)
    if (named.is_object() && named.value("name", "") == "default" && named.contains("template") &&
        named["template"].is_string())
      return named["template"].get<std::string>();
  return {};
}

}  // namespace

std::string_view chat_format_name(ChatFormat format) { return kNames[static_cast<std::size_t>(format)]; }
std::span<const std::string_view> chat_format_names() { return kNames; }

ChatFormat parse_chat_format(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<ChatFormat>(i);
  fail("chat format '{}': one of {}", name, fmt::join(kNames, ", "));
}

std::optional<ChatFormat> recognise_chat_template(std::string_view text) {
  const auto has = [text](std::string_view mark) { return text.find(mark) != std::string_view::npos; };
  if (has("<|im_start|>")) return ChatFormat::chatml;
  if (has(kAssistant)) return ChatFormat::deepseek;
  if (has("<|start_header_id|>")) return ChatFormat::llama3;
  if (has("[INST]")) return has("<<SYS>>") ? ChatFormat::llama2 : ChatFormat::mistral;
  if (has("<|assistant|>")) return has("<|end|>") ? ChatFormat::phi3 : ChatFormat::zephyr;
  if (has("'User: '") && has("Assistant:")) return ChatFormat::deepseek_v2;
  return std::nullopt;
}

std::string find_chat_template(const fs::path& model) {
  if (!fs::is_directory(model)) {
    const Gguf file(model);
    return file.find("tokenizer.chat_template") != nullptr ? file.get_string("tokenizer.chat_template") : "";
  }
  if (fs::exists(model / "chat_template.jinja")) return read_file(model / "chat_template.jinja", kMaxConfig);
  if (!fs::exists(model / "tokenizer_config.json")) return {};
  const std::string text = read_file(model / "tokenizer_config.json", kMaxConfig);
  int depth = 0;
  const auto bounded = [&](int, nlohmann::json::parse_event_t event, nlohmann::json&) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) ++depth;
    if (event == Event::object_end || event == Event::array_end) --depth;
    require(depth <= 64, "{}: nested too deeply", (model / "tokenizer_config.json").string());
    return true;
  };
  return template_of(nlohmann::json::parse(text, bounded, false));
}

std::string render_chat(ChatFormat format, std::span<const ChatMessage> messages) {
  switch (format) {
    case ChatFormat::chatml:
      return with_marks({"", "<|im_start|>", "\n", "<|im_end|>\n", "<|im_start|>assistant\n"}, messages);
    case ChatFormat::llama3:
      return with_marks({"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>",
                         "<|start_header_id|>assistant<|end_header_id|>\n\n"},
                        messages);
    case ChatFormat::zephyr:
      return with_marks({"", "<|", "|>\n", "</s>\n", "<|assistant|>\n"}, messages);
    case ChatFormat::phi3:
      return with_marks({"<s>", "<|", "|>\n", "<|end|>\n", "<|assistant|>\n"}, messages);
    case ChatFormat::deepseek:
      return deepseek(messages);
    case ChatFormat::deepseek_v2:
      return deepseek_v2(messages);
    case ChatFormat::llama2:
      return instructions(messages, true);
    case ChatFormat::mistral:
      return instructions(messages, false);
    default:
      return plain(messages);
  }
}

std::string_view chat_stop_text(ChatFormat format) { return format == ChatFormat::plain ? "\nUser:" : ""; }

}  // namespace sinew
