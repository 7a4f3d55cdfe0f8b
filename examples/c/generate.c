/* Text after a prompt: generate MODEL "Once upon a time" */
#include <sinew.h>
#include <stdio.h>

static int on_text(void* user, const char* bytes, size_t count) {
  (void)user;
  fwrite(bytes, 1, count, stdout);
  fflush(stdout);
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s MODEL PROMPT\n", argv[0]);
    return 2;
  }
  sinew_model* model = sinew_model_load(argv[1]);
  if (model == NULL) {
    fprintf(stderr, "%s\n", sinew_last_error());
    return 1;
  }
  sinew_session_options options = sinew_session_defaults();
  options.temperature = 0.8;
  options.top_p = 0.95;
  options.seed = 1;
  sinew_session* session = sinew_session_new(model, &options);
  int64_t tokens = session == NULL ? -1 : sinew_generate(session, argv[2], 100, on_text, NULL);
  if (tokens < 0) fprintf(stderr, "%s\n", sinew_last_error());
  printf("\n");
  sinew_session_free(session);
  sinew_model_free(model);
  return tokens < 0;
}
