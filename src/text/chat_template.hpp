// Conversations as the text that a chat model was trained on. A file's own template (Jinja) is recognised by
// the marks it uses; the common formats are built in.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sinew {

enum class ChatFormat { chatml, deepseek, deepseek_v2, llama3, llama2, mistral, zephyr, phi3, plain };

std::string_view chat_format_name(ChatFormat format);
ChatFormat parse_chat_format(std::string_view name);  // throws UserError listing the names
std::span<const std::string_view> chat_format_names();

// The format a Jinja template writes; none when no mark is known.
std::optional<ChatFormat> recognise_chat_template(std::string_view text);

// The template of a model: `chat_template` of tokenizer_config.json, chat_template.jinja, or
// tokenizer.chat_template of a GGUF file; empty when there is none.
std::string find_chat_template(const std::filesystem::path& model);

struct ChatMessage {
  std::string role;  // system, user, assistant
  std::string content;
};
// The text up to where the assistant's next answer begins, BOS and end marks included: encode it with special
// tokens parsed and none added.
std::string render_chat(ChatFormat format, std::span<const ChatMessage> messages);

// What ends an answer where the vocabulary has no token for it ("\n\nUser:"); empty: end tokens do.
std::string_view chat_stop_text(ChatFormat format);

}  // namespace sinew
