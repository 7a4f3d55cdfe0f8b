include(CheckCXXCompilerFlag)
# Compiler flags shared by every target: warnings, sanitizers, ccache.
add_library(sinew_flags INTERFACE)
target_compile_options(sinew_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # False alarms of GCC 12 inside std::string and std::variant (PR 105651, 105329, 105562).
  target_compile_options(sinew_flags INTERFACE -Wno-restrict -Wno-array-bounds -Wno-stringop-overflow
                         -Wno-maybe-uninitialized)
  # Fewer collections of the compiler's garbage: 7 % less time for up to 1 GB a process.
  target_compile_options(sinew_flags INTERFACE "SHELL:--param ggc-min-heapsize=1000000" "SHELL:--param ggc-min-expand=200")
  # From version 13 on these differ between -O1 and -O2, and a precompiled header of the other kind is refused.
  check_cxx_compiler_flag(-munroll-only-small-loops SINEW_HAS_SMALL_LOOPS)
  if(SINEW_HAS_SMALL_LOOPS)
    target_compile_options(sinew_flags INTERFACE -munroll-only-small-loops -mvzeroupper)
  endif()
endif()
if(SINEW_WERROR)
  target_compile_options(sinew_flags INTERFACE -Werror)
endif()
if(SINEW_SANITIZE)
  target_compile_options(sinew_flags INTERFACE -fsanitize=${SINEW_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(sinew_flags INTERFACE -fsanitize=${SINEW_SANITIZE})
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

# How hard the compiler tries in a release: -O2, -O3 in rooms that compute (FAST), -O1 in rooms that only arrange,
# read and write (LIGHT), not at all in tests. The templates of the command line, of JSON and of the tests would
# take two thirds of a clean build at -O3.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(SINEW_FAST $<$<CONFIG:Release>:-O3>)
set(SINEW_LIGHT $<$<CONFIG:Release>:-O1>)
set(SINEW_TEST $<$<CONFIG:Release>:-O0>)

# Even an empty file instantiates what its precompiled header leaves to the end of a file: 2 s of libtorch's
# templates, 1.6 s of the tests'. So the files of such targets are compiled a few at a time; each still stands by itself.
function(sinew_together target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 4)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)  # of a file that another one includes
  endif()
endfunction()

# sinew_precompiled_header(NAME [LIBS ...] [OPTIONS ...] HEADERS ...)
# One precompiled header for many targets, which say target_precompile_headers(TARGET REUSE_FROM NAME). Their
# definitions and flags must equal those of its owner, the level of optimisation above 0 excepted.
function(sinew_precompiled_header name)
  cmake_parse_arguments(H "" "" "LIBS;OPTIONS;HEADERS" ${ARGN})
  file(WRITE ${CMAKE_BINARY_DIR}/${name}.cpp "// Owns the precompiled header.\n")
  add_library(${name} STATIC ${CMAKE_BINARY_DIR}/${name}.cpp)
  target_link_libraries(${name} PUBLIC ${H_LIBS} PRIVATE sinew_flags)
  target_compile_options(${name} PRIVATE ${H_OPTIONS})
  target_precompile_headers(${name} PRIVATE <algorithm> <array> <cmath> <cstdint> <cstring> <filesystem> <functional>
    <map> <memory> <optional> <span> <string> <string_view> <utility> <vector> <fmt/format.h> ${H_HEADERS})
endfunction()
