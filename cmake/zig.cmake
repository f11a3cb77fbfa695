# Cross builds with zig (PyPI's ziglang), which brings clang and the C libraries of many systems:
#   cmake -S . -B build/windows -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/zig.cmake \
#         -DPYLLM_ZIG_TARGET=x86_64-windows-gnu [-DPYLLM_ZIG=/path/to/zig]
# Without PYLLM_ZIG the program is looked for on the PATH and in the ziglang package of `python3`.
set(PYLLM_ZIG_TARGET "" CACHE STRING "zig's target triple, such as x86_64-linux-gnu.2.17 or aarch64-macos")
set(PYLLM_ZIG "" CACHE FILEPATH "the zig program")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES PYLLM_ZIG PYLLM_ZIG_TARGET)
if(NOT PYLLM_ZIG_TARGET MATCHES "^([a-z0-9_]+)-([a-z]+)")
  message(FATAL_ERROR "set PYLLM_ZIG_TARGET, for example -DPYLLM_ZIG_TARGET=aarch64-macos")
endif()
set(CMAKE_SYSTEM_PROCESSOR "${CMAKE_MATCH_1}")
set(os "${CMAKE_MATCH_2}")
if(os STREQUAL "windows")
  set(CMAKE_SYSTEM_NAME Windows)
elseif(os STREQUAL "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
else()
  set(CMAKE_SYSTEM_NAME Linux)
endif()

if(NOT PYLLM_ZIG)
  find_program(PYLLM_ZIG_FOUND zig)
  if(PYLLM_ZIG_FOUND)
    set(PYLLM_ZIG "${PYLLM_ZIG_FOUND}")
  else()
    execute_process(COMMAND python3 -c "import os, ziglang; print(os.path.join(ziglang.__path__[0], 'zig'))"
                    OUTPUT_VARIABLE PYLLM_ZIG OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed)
    if(failed)
      message(FATAL_ERROR "no zig: pip install ziglang, or set PYLLM_ZIG")
    endif()
  endif()
endif()
set(CMAKE_C_COMPILER "${PYLLM_ZIG}" cc -target ${PYLLM_ZIG_TARGET})
set(CMAKE_RC_COMPILER "${PYLLM_ZIG}") # asked for by CMake on Windows; there are no resources to compile
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  set(CMAKE_C_FLAGS_INIT "-mevex512") # zig's baseline CPU turns 512-bit registers off, also where -mavx512f is given
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
