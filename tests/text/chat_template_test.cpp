#include "text/chat_template.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

const std::vector<ChatMessage> kTalk{
    {"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello"}, {"user", "Why?"}};

// What transformers' apply_chat_template(.., add_generation_prompt=True) gives with the models' own
// templates.
TEST(ChatTemplate, WritesWhatTheModelsTemplatesWrite) {
  EXPECT_EQ(render_chat(ChatFormat::chatml, kTalk),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
            "Hello<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      render_chat(ChatFormat::deepseek, kTalk),
      "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜><｜User｜>Why?"
      "<｜Assistant｜>");
  EXPECT_EQ(
      render_chat(ChatFormat::deepseek_v2, kTalk),
      "<｜begin▁of▁sentence｜>Be brief.\n\nUser: Hi\n\nAssistant: Hello<｜end▁of▁sentence｜>User: Why?\n\n"
      "Assistant:");
  EXPECT_EQ(
      render_chat(ChatFormat::llama3, kTalk),
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>"
      "user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
      "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant"
      "<|end_header_id|>\n\n");
  EXPECT_EQ(render_chat(ChatFormat::llama2, kTalk),
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Why? [/INST]");
  EXPECT_EQ(render_chat(ChatFormat::zephyr, kTalk),
            "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\nWhy?</s>\n"
            "<|assistant|>\n");
}

TEST(ChatTemplate, RecognisedByItsMarks) {
  const std::vector<std::pair<const char*, ChatFormat>> cases{
      {"{{'<|im_start|>' + message['role']}}", ChatFormat::chatml},
      {"{{'<｜User｜>' + message['content']}}{{'<｜Assistant｜>'}}", ChatFormat::deepseek},
      {"{{ 'User: ' + message['content'] }}{{ 'Assistant:' }}", ChatFormat::deepseek_v2},
      {"{{ '<|start_header_id|>' }}", ChatFormat::llama3},
      {"{{ bos_token + '[INST] ' + '<<SYS>>' }}", ChatFormat::llama2},
      {"{{ '[INST] ' + message['content'] + ' [/INST]' }}", ChatFormat::mistral},
      {"{{ '<|user|>' }}{{ '<|assistant|>' }}", ChatFormat::zephyr},
      {"{{ '<|user|>' }}<|end|>{{ '<|assistant|>' }}", ChatFormat::phi3}};
  for (const auto& [text, format] : cases) EXPECT_EQ(recognise_chat_template(text), format) << text;
  EXPECT_EQ(recognise_chat_template("{{ message }}"), std::nullopt);
  for (const auto name : chat_format_names()) EXPECT_EQ(chat_format_name(parse_chat_format(name)), name);
  EXPECT_THROW(parse_chat_format("chatlm"), UserError);
}

TEST(ChatTemplate, FoundInAModelDirectory) {
  const test::TempDir dir;
  EXPECT_EQ(find_chat_template(dir.path()), "");
  test::spit(dir / "tokenizer_config.json", R"({"chat_template": [{"name": "tool", "template": "a"},
    {"name": "default", "template": "b"}]})");
  EXPECT_EQ(find_chat_template(dir.path()), "b");
  test::spit(dir / "tokenizer_config.json", R"({"chat_template": "c"})");
  EXPECT_EQ(find_chat_template(dir.path()), "c");
  test::spit(dir / "tokenizer_config.json", R"({"chat_template": 3)");
  EXPECT_EQ(find_chat_template(dir.path()), "");
}

}  // namespace
}  // namespace sinew
