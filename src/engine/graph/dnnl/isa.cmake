# How graph/dnnl is compiled. The passes of kernels_body.h once per instruction set (the file names say which;
# the processor is asked at run time), attention_amx.c for the one that has tiles; elsewhere the baseline only.
find_package(OpenMP REQUIRED COMPONENTS C) # oneDNN's threads are OpenMP's: one pool for both
set(dnnl_folder ${CMAKE_CURRENT_SOURCE_DIR}/graph/dnnl)
# -Wno-psabi: vectors of 64 bytes are split where registers are shorter, and no function that takes one is
# visible outside its file.
set(dnnl_options "${OpenMP_C_FLAGS};-Wno-psabi")
set_source_files_properties(${dnnl_sources} PROPERTIES COMPILE_OPTIONS "${dnnl_options}")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(${dnnl_sources} PROPERTIES COMPILE_DEFINITIONS MYSTI_DNNL_X86=1)
  set_source_files_properties(${dnnl_folder}/kernels_avx2.c PROPERTIES
    COMPILE_OPTIONS "${dnnl_options};-march=x86-64-v3")
  set_source_files_properties(${dnnl_folder}/kernels_avx512.c PROPERTIES
    COMPILE_OPTIONS "${dnnl_options};-march=x86-64-v4;-mprefer-vector-width=512")
  set_source_files_properties(${dnnl_folder}/attention_amx.c PROPERTIES
    COMPILE_OPTIONS "${dnnl_options};-march=x86-64-v4;-mavx512bf16;-mamx-tile;-mamx-bf16")
endif()
target_link_libraries(mysti_engine PUBLIC OpenMP::OpenMP_C)
# Whatever program links the engine must run on the C library that oneDNN came with (see mysti_link_prefix).
string(FIND "${DNNL_LIBRARY}" "${MYSTI_STABLE}" dnnl_in_prefix)
if(dnnl_in_prefix EQUAL 0)
  target_link_options(mysti_engine INTERFACE -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags
    -Wl,-rpath,${stable_lib} -Wl,--dynamic-linker,${stable_lib}/ld-linux-x86-64.so.2)
endif()
