# The tokenizer's tables, made in the build folder: CLIP's merges (fetched once, pinned by integrity, see
# deps/clip_merges.py) and Unicode's classes. Included by src/engine/CMakeLists.txt.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(tables ${CMAKE_CURRENT_SOURCE_DIR}/text/make_tables.py)
set(merges ${MYSTI_DEPS}/clip/merges.txt)
set(generated ${CMAKE_CURRENT_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${generated})

add_custom_command(OUTPUT ${merges}
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/deps/clip_merges.py ${MYSTI_DEPS}
  DEPENDS ${CMAKE_SOURCE_DIR}/deps/clip_merges.json VERBATIM)
add_custom_command(OUTPUT ${generated}/clip_tables.c
  COMMAND ${Python3_EXECUTABLE} ${tables} merges ${merges} ${generated}/clip_tables.c
  DEPENDS ${tables} ${merges} VERBATIM)
add_custom_command(OUTPUT ${generated}/unicode_tables.c
  COMMAND ${Python3_EXECUTABLE} ${tables} unicode ${generated}/unicode_tables.c
  DEPENDS ${tables} VERBATIM)
target_sources(mysti_engine PRIVATE ${generated}/clip_tables.c ${generated}/unicode_tables.c)
