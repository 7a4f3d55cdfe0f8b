// The C interface, used as a C program would.
#include "capi/sinew.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "quant/convert.hpp"
#include "support/support.hpp"

namespace sinew {
namespace {

class CApi : public ::testing::Test {
 protected:
  void SetUp() override {
    SINEW_NEED_DATA();
    ConvertOptions options;
    options.source = test::data_dir() / "models" / "stories260K" / "stories260K.bin";
    options.out = dir_ / "model";
    convert_model(options);
    model_ = sinew_model_load((dir_ / "model").c_str());
    ASSERT_NE(model_, nullptr) << sinew_last_error();
  }
  void TearDown() override { sinew_model_free(model_); }

  test::TempDir dir_;
  sinew_model* model_ = nullptr;
};

TEST_F(CApi, TellsTheStory) {
  sinew_session* session = sinew_session_new(model_, nullptr);
  std::string text;
  const auto hear = [](void* user, const char* bytes, size_t count) {
    static_cast<std::string*>(user)->append(bytes, count);
    return 1;
  };
  EXPECT_EQ(sinew_generate(session, "", 200, hear, &text), 200);
  const std::string want =
      test::slurp(test::data_dir() / "models" / "stories260K" / "expected_greedy_n200.txt");
  EXPECT_EQ(text + "\n", want);
  sinew_session_free(session);
}

TEST_F(CApi, FeedSampleAndTakeBack) {
  std::vector<int32_t> ids(16);
  const std::string text = "Once upon a time";
  const int64_t count = sinew_tokenize(model_, text.data(), text.size(), 1, ids.data(), ids.size());
  ASSERT_GT(count, 1);
  EXPECT_EQ(sinew_tokenize(model_, text.data(), text.size(), 1, nullptr, 0), count);
  std::string back(64, 0);
  back.resize(static_cast<size_t>(
      sinew_detokenize(model_, ids.data() + 1, static_cast<size_t>(count - 1), back.data(), back.size())));
  EXPECT_EQ(back, text);

  sinew_session* session = sinew_session_new(model_, nullptr);
  EXPECT_EQ(sinew_session_logits(session), nullptr);
  EXPECT_EQ(sinew_session_sample(session), -1);
  EXPECT_STREQ(sinew_last_error(), "no tokens have been run");
  ASSERT_EQ(sinew_session_feed(session, ids.data(), static_cast<size_t>(count)), 0) << sinew_last_error();
  const int32_t next = sinew_session_sample(session);
  const auto vocab = static_cast<size_t>(sinew_model_vocab_size(model_));
  const std::vector<float> logits(sinew_session_logits(session), sinew_session_logits(session) + vocab);
  EXPECT_EQ(next, std::max_element(logits.begin(), logits.end()) - logits.begin());
  ASSERT_EQ(sinew_session_feed(session, &next, 1), 0);
  EXPECT_EQ(sinew_session_length(session), count + 1);
  ASSERT_EQ(sinew_session_truncate(session, count - 1), 0);
  ASSERT_EQ(sinew_session_feed(session, &ids[static_cast<size_t>(count - 1)], 1), 0);
  for (size_t v = 0; v < vocab; ++v) ASSERT_NEAR(sinew_session_logits(session)[v], logits[v], 1e-4);
  EXPECT_LT(sinew_session_truncate(session, 99), 0);
  const int32_t wrong = 512;
  EXPECT_LT(sinew_session_feed(session, &wrong, 1), 0);
  EXPECT_THAT(sinew_last_error(), ::testing::HasSubstr("vocabulary of 512"));
  sinew_session_free(session);
}

TEST(CApiErrors, AreToldNotThrown) {
  EXPECT_EQ(sinew_model_load("/no/such/model"), nullptr);
  EXPECT_THAT(sinew_last_error(), ::testing::HasSubstr("/no/such/model"));
  EXPECT_EQ(sinew_model_load(nullptr), nullptr);
  EXPECT_EQ(sinew_session_new(nullptr, nullptr), nullptr);
  EXPECT_EQ(sinew_api_version(), SINEW_API_VERSION);
}

}  // namespace
}  // namespace sinew
