# Compiler flags shared by every target: warnings, sanitizers, ccache.
add_library(sinew_flags INTERFACE)
target_compile_options(sinew_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(sinew_flags INTERFACE -Wno-restrict)  # false alarms of GCC 12 (PR 105651)
endif()
if(SINEW_WERROR)
  target_compile_options(sinew_flags INTERFACE -Werror)
endif()
if(SINEW_SANITIZE)
  target_compile_options(sinew_flags INTERFACE -fsanitize=${SINEW_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(sinew_flags INTERFACE -fsanitize=${SINEW_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(sinew_flags INTERFACE -Wno-maybe-uninitialized)  # false alarms in <regex> (PR 105562)
  endif()
endif()

find_program(SINEW_CCACHE ccache)
if(SINEW_CCACHE)
  # Precompiled headers are cached too, but only with these kinds of sloppiness. Paths count from the source
  # folder, so that a second clone finds what the first one compiled.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${SINEW_CCACHE})
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
endif()
