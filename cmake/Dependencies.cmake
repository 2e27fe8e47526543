# System libraries by pkg-config. What an older Debian lacks comes from the private prefixes that
# deps/fetch.sh unpacks (see deps/README.md): llhttp as a static library, oneDNN together with the C library
# of its own release. Targets made here: mysti::uv jansson yaml png jpeg webp curl sqlite cmocka llhttp, and mysti::dnnl and
# mysti::ggml when they are there. Programs that use either are linked by mysti_link_prefix().
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

function(mysti_package name module)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${module})
  add_library(mysti::${name} ALIAS PkgConfig::${name})
endfunction()
mysti_package(uv libuv)
mysti_package(jansson jansson)
mysti_package(yaml yaml-0.1)
mysti_package(png libpng)
mysti_package(jpeg libjpeg)
mysti_package(webp libwebp)
mysti_package(curl libcurl)
mysti_package(sqlite sqlite3)
if(MYSTI_TESTS)
  mysti_package(cmocka cmocka)
endif()

set(MYSTI_STABLE ${MYSTI_DEPS}/stable) # Debian 13: what we link
set(stable_lib ${MYSTI_STABLE}/usr/lib/${CMAKE_C_LIBRARY_ARCHITECTURE})

# llhttp: always the static library, so that mysti_server needs nothing outside the system at run time.
find_library(LLHTTP_LIBRARY NAMES libllhttp.a HINTS ${stable_lib})
find_path(LLHTTP_INCLUDE llhttp.h HINTS ${MYSTI_STABLE}/usr/include)
if(NOT LLHTTP_LIBRARY OR NOT LLHTTP_INCLUDE)
  message(FATAL_ERROR "llhttp was found neither on the system (package libllhttp-dev, Debian 13 on) nor in "
    "${MYSTI_STABLE}: run deps/fetch.sh, or 'make run', which does it")
endif()
add_library(mysti_llhttp STATIC IMPORTED)
set_target_properties(mysti_llhttp PROPERTIES IMPORTED_LOCATION ${LLHTTP_LIBRARY}
  INTERFACE_INCLUDE_DIRECTORIES ${LLHTTP_INCLUDE})
add_library(mysti::llhttp ALIAS mysti_llhttp)

# oneDNN 3: the system's when it is new enough, else the prefix's with its own C library.
set(MYSTI_HAVE_DNNL OFF)
if(NOT MYSTI_DNNL STREQUAL "OFF")
  find_library(DNNL_LIBRARY NAMES dnnl HINTS ${stable_lib})
  find_path(DNNL_INCLUDE oneapi/dnnl/dnnl_ukernel.h HINTS ${MYSTI_STABLE}/usr/include
    ${MYSTI_STABLE}/usr/include/${CMAKE_C_LIBRARY_ARCHITECTURE})
  if(DNNL_LIBRARY AND DNNL_INCLUDE)
    set(MYSTI_HAVE_DNNL ON)
    add_library(mysti_dnnl SHARED IMPORTED)
    set_target_properties(mysti_dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY}
      INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE})
    add_library(mysti::dnnl ALIAS mysti_dnnl)
  elseif(MYSTI_DNNL STREQUAL "ON")
    message(FATAL_ERROR "oneDNN 3 was found neither on the system nor in ${MYSTI_STABLE}: run deps/fetch.sh")
  endif()
endif()
message(STATUS "oneDNN back end: ${MYSTI_HAVE_DNNL} ${DNNL_LIBRARY}")

# ggml: its base library alone, which knows how every GGUF type is packed. Without it F32, F16, BF16 and Q8_0 are read.
set(MYSTI_HAVE_GGML OFF)
if(NOT MYSTI_GGML STREQUAL "OFF")
  find_library(GGML_LIBRARY NAMES ggml-base HINTS ${stable_lib})
  find_path(GGML_INCLUDE ggml.h HINTS ${MYSTI_STABLE}/usr/include)
  if(GGML_LIBRARY AND GGML_INCLUDE)
    set(MYSTI_HAVE_GGML ON)
    add_library(mysti_ggml SHARED IMPORTED)
    set_target_properties(mysti_ggml PROPERTIES IMPORTED_LOCATION ${GGML_LIBRARY}
      INTERFACE_INCLUDE_DIRECTORIES ${GGML_INCLUDE})
    add_library(mysti::ggml ALIAS mysti_ggml)
  elseif(MYSTI_GGML STREQUAL "ON")
    message(FATAL_ERROR "ggml was found neither on the system nor in ${MYSTI_STABLE}: run deps/fetch.sh")
  endif()
endif()
message(STATUS "ggml's quantisations: ${MYSTI_HAVE_GGML} ${GGML_LIBRARY}")

# A program on the prefix's oneDNN or ggml runs on the prefix's C library as a whole: interpreter and every library
# from that one release, never two libcs in one process. DT_RPATH, not RUNPATH: only it reaches the
# dependencies of dependencies.
set(CMAKE_SKIP_BUILD_RPATH ON) # the one below is enough; CMake's own would warn about what it hides
function(mysti_link_prefix target)
  string(FIND "${DNNL_LIBRARY}" "${MYSTI_STABLE}" dnnl_at)
  string(FIND "${GGML_LIBRARY}" "${MYSTI_STABLE}" ggml_at)
  if((MYSTI_HAVE_DNNL AND dnnl_at EQUAL 0) OR (MYSTI_HAVE_GGML AND ggml_at EQUAL 0))
    target_link_options(${target} PRIVATE -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags
      -Wl,-rpath,${stable_lib} -Wl,--dynamic-linker,${stable_lib}/ld-linux-x86-64.so.2)
  endif()
endfunction()
