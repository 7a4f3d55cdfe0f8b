# libtorch, and one precompiled header of its narrow core for all rooms that use it. torch/torch.h
# costs 20 s a file; ATen.h plus custom_function.h, precompiled, 1 to 3 s.
find_package(Torch REQUIRED)
add_library(sinew_torch INTERFACE)
target_include_directories(sinew_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(sinew_torch INTERFACE ${TORCH_LIBRARIES})
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(sinew_torch INTERFACE ${torch_flags})

file(WRITE ${CMAKE_BINARY_DIR}/torch_pch.cpp "// Owns the precompiled header.\n")
add_library(sinew_torch_pch STATIC ${CMAKE_BINARY_DIR}/torch_pch.cpp)
target_link_libraries(sinew_torch_pch PUBLIC sinew_torch fmt::fmt Threads::Threads PRIVATE sinew_flags)
target_precompile_headers(sinew_torch_pch PRIVATE
  <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <torch/csrc/autograd/autograd.h>
  <fmt/format.h> <functional> <map> <memory> <string> <vector>)

function(sinew_use_torch target)
  target_link_libraries(${target} PUBLIC sinew_torch)
  # Position-independent or not, definitions and flags must equal those of the header's owner.
  target_precompile_headers(${target} REUSE_FROM sinew_torch_pch)
endfunction()
